"""What every recipe is made of."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from vla_jax.recipes import limits
from vla_jax.recipes.rollouts import Rollout
from vla_jax.scoring import Candidate, Scores, TeacherForced

_NOT_METHODS = (
    "answers",
    "blinding",
    "corruption",
    "judged_pairs",
    "limits",
    "measures",
    "recipe",
    "rollouts",
)


class KeyObject(NamedTuple):
    """The object that an answer is about, in pixels of the fitted image.

    Attributes:
      box: (x0, y0, x1, y1); empty where there is nothing.
      mask: its pixels, those of its box where the data has no mask; None where the recipe reads none.
    """

    box: Float[Array, "4"]
    mask: Bool[Array, "y x"] | None


MakeViews = Callable[[UInt8[Array, "y x 3"], KeyObject, PRNGKeyArray], UInt8[Array, "v y x 3"]]


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
      make_views: one image, its key object and a key of randomness -> its views.
      candidates: which responses are read under which views. Responses made (see `made`) stand behind those
        of the data, and views that no candidate reads stand behind the others.
      objective: scores -> losses and metrics.
      needs_reference: whether candidates are scored under the frozen reference too.
      made: responses that the model training starts from makes by teacher forcing, fixed once a record.
      made_roles: what they are called in a data set.
      image_words: whether the objective reads what the image tokens alone say of the words.
      sequences: whether the objective reads a reward head, which is then trained too.
      values: whether the objective reads a value head, which is then trained too.
      divergences: whether the objective reads how far policy and reference are apart at each token.
      rollout: how the method makes the responses it learns from; None where the data has them.
      hides_key_object: whether the key object is hidden in the last view.
      masks: whether `make_views` reads the key object's mask.
      changes: whether the objective reads which tokens set the first two responses apart.
      tile_by_tile: whether views of an image in tiles are the views of its tiles; boxes and masks are not
        known there.
      further_turns: whether turns that follow the first answer are read and scored as part of it.
    """

    responses: tuple[str, ...]
    view_names: tuple[str, ...]
    make_views: MakeViews
    candidates: tuple[Candidate, ...]
    objective: Callable[[Scores], Objective]
    needs_reference: bool = True
    made: tuple[TeacherForced, ...] = ()
    made_roles: tuple[str, ...] = ()
    image_words: bool = False
    sequences: bool = False
    values: bool = False
    divergences: bool = False
    rollout: Rollout | None = None
    hides_key_object: bool = False
    masks: bool = False
    changes: bool = False
    further_turns: bool = False
    tile_by_tile: bool = False

    @property
    def candidate_views(self) -> int:
        """How many of the views candidates are read under."""
        return 1 + max(candidate.view for candidate in self.candidates)

    @property
    def made_here(self) -> tuple[str, ...]:
        """Roles of the responses that the method makes; they stand behind those of the data."""
        return self.rollout.roles if self.rollout else self.made_roles


def original(image: UInt8[Array, "y x 3"], key_object: KeyObject, key: PRNGKeyArray) -> Array:
    """The one view of recipes that only compare texts."""
    del key_object, key
    return image[None]


def pair_of_answers(objective: Callable[[Scores], Objective], **fields: Any) -> Recipe:
    """The recipe of two candidates, the chosen (0) and the rejected (1) response under the image.

    Args:
      objective: scores -> losses and metrics.
      fields: further ones of the recipe.
    """
    return Recipe(
        responses=("chosen", "rejected"),
        view_names=("image",),
        make_views=original,
        candidates=(Candidate(view=0, response=0), Candidate(view=0, response=1)),
        objective=objective,
        tile_by_tile=True,
        **fields,
    )


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
      ValueError: where there is no such recipe, or it has no such option, or none of that value.
    """
    module = _module(name)
    known = asdict(module.Options())
    if unknown := sorted(set(options or {}) - set(known)):
        raise ValueError(f"recipe {name!r} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    chosen = module.Options(**(options or {}))
    limits.check(name, asdict(chosen))
    return module.recipe(chosen)


def default_options(name: str) -> dict[str, Any]:
    """The options of a recipe with their defaults."""
    return asdict(_module(name).Options())


def constructors() -> tuple[str, ...]:
    """Names of the recipes whose responses can be made beforehand: their modules have `CONSTRUCTING`."""
    return tuple(name for name in available() if hasattr(_module(name), "CONSTRUCTING"))


def constructing(name: str) -> Mapping[str, Any]:
    """The options under which a recipe makes responses without learning from them."""
    return _module(name).CONSTRUCTING


def _module(name: str) -> Any:
    if name not in available():
        raise ValueError(f"there is no recipe {name!r}; choose one of {', '.join(available())}")
    return importlib.import_module(f"{__package__}.{name}")
