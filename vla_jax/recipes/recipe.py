"""What every recipe is made of."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from vla_jax.scoring import Candidate, Scores

_NOT_METHODS = ("recipe", "measures")

MakeView = Callable[[UInt8[Array, "y x 3"], Float[Array, "4"], PRNGKeyArray], UInt8[Array, "v y x 3"]]


class Objective(NamedTuple):
    """What an objective returns.

    Attributes:
      losses: summed loss of each example.
      denominators: what each sum is to be divided by: 1 an example, or its number of tokens. The batch's loss
        is sum(losses) / sum(denominators), over all micro-batches and devices.
      metrics: name -> one value an example, averaged over the batch.
    """

    losses: Float[Array, " b"]
    denominators: Float[Array, " b"]
    metrics: Mapping[str, Float[Array, " b"]]


@dataclass(frozen=True)
class Recipe:
    """One method.

    Attributes:
      responses: roles of the responses it reads, in the order of the batch's response axis.
      view_names: what each view shows, for people.
      make_views: one image, the box of its key object and a key of randomness -> its views.
      candidates: which responses are read under which views.
      objective: scores -> losses and metrics.
      needs_reference: whether candidates are scored under the frozen reference too.
      image_words: whether the objective reads what the image tokens alone say of the words.
      further_turns: whether turns that follow the first answer are read and scored as part of it.
    """

    responses: tuple[str, ...]
    view_names: tuple[str, ...]
    make_views: MakeView
    candidates: tuple[Candidate, ...]
    objective: Callable[[Scores], Objective]
    needs_reference: bool = True
    image_words: bool = False
    further_turns: bool = False


def original(image: UInt8[Array, "y x 3"], box: Float[Array, "4"], key: PRNGKeyArray) -> Array:
    """The one view of recipes that only compare texts."""
    del box, key
    return image[None]


def per_example(losses: Float[Array, " b"], metrics: Mapping[str, Float[Array, " b"]]) -> Objective:
    """An objective that weights every example alike."""
    return Objective(losses, jnp.ones_like(losses), metrics)


def available() -> tuple[str, ...]:
    """Names of all recipes."""
    package = importlib.import_module(__package__)
    modules = pkgutil.iter_modules(package.__path__)
    return tuple(sorted(module.name for module in modules if module.name not in _NOT_METHODS))


def named(name: str, options: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe `name` with these options.

    Raises:
      ValueError: where there is no such recipe, or it has no such option.
    """
    module = _module(name)
    known = asdict(module.Options())
    if unknown := sorted(set(options or {}) - set(known)):
        raise ValueError(f"recipe {name!r} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return module.recipe(module.Options(**(options or {})))


def default_options(name: str) -> dict[str, Any]:
    """The options of a recipe with their defaults."""
    return asdict(_module(name).Options())


def _module(name: str) -> Any:
    if name not in available():
        raise ValueError(f"there is no recipe {name!r}; choose one of {', '.join(available())}")
    return importlib.import_module(f"{__package__}.{name}")
