"""One file a method: a recipe names its views, its responses, its candidates and its objective.

Open `lpoi.py` and you see LPOI whole. A module here gives `Options`, a frozen dataclass of the method's
settings with the papers' defaults, and `recipe(options) -> Recipe`. Adding a method is adding a file:
`named` finds it by its module name. One whose responses can be made beforehand, by `construct`, also says
under which options, in `CONSTRUCTING`.
"""

from vla_jax.recipes.recipe import (
    KeyObject,
    Objective,
    Recipe,
    available,
    constructing,
    constructors,
    default_options,
    named,
)
from vla_jax.recipes.rollouts import Collected, Policy, Rollout

__all__ = [
    "Collected",
    "KeyObject",
    "Objective",
    "Policy",
    "Recipe",
    "Rollout",
    "available",
    "constructing",
    "constructors",
    "default_options",
    "named",
]
