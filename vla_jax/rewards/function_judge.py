"""A function of the user's as the judge."""

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vla_jax.rewards.blind import Readings
from vla_jax.rewards.judging import Comparison, JudgeError, Shown
from vla_jax.rewards.reading import Reading

_BETTER: dict[Any, Any] = {0: 1, 1: 2, None: None}


@dataclass(frozen=True)
class FunctionJudge:
    """Asks a function; see `BlindJudge.judge`.

    Attributes:
      name: `module:function`, as an error calls it.
      function: of comparisons in the order that was drawn; says of each 0 (the first is better), 1 or None.
    """

    name: str
    function: Callable[[Sequence[Comparison]], Sequence[int | None]]

    def __call__(self, asked: Sequence[Shown]) -> Readings:
        """All readings.

        Raises:
          JudgeError: where it says something else.
        """
        said = self.function([Comparison(one.image, one.question, *one.responses) for one in asked])
        try:
            readings = [Reading(_BETTER[value]) for value in said]
        except (KeyError, TypeError):  # another value, one that is no key, no sequence
            readings = []
        if len(readings) != len(asked):
            raise JudgeError(
                f"{self.name} was given {len(asked)} comparisons and said {said!r:.200}; return 0, 1 or None "
                "for each"
            )
        yield from enumerate(readings)


def function_named(path: str, field: str) -> Callable[..., Any]:
    """The function at `module:function`.

    Args:
      path: where it is.
      field: what an error calls the setting.

    Raises:
      ValueError: where there is none.
    """
    try:
        function = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{field} is {path!r}, which cannot be imported ({error})") from None
    if not callable(function):
        raise ValueError(f"{field} is {path!r}, which is no function")
    return function
