"""IPO: identity preference optimisation on the original image (Azar et al. 2023, arXiv:2310.12036).

The margin between the two answers is regressed on a constant instead of being pushed without end.
"""

from dataclasses import dataclass

from vla_jax.objectives import ipo
from vla_jax.recipes.measures import preference_metrics
from vla_jax.recipes.recipe import Objective, Recipe, pair_of_answers, per_example
from vla_jax.scoring import Scores


@dataclass(frozen=True)
class Options:
    """Settings of IPO.

    Attributes:
      beta: the margin asked for is 1 / (2 beta).
      length_normalize: log-ratios are means over an answer's tokens, as TRL has them; False takes sums, as
        the paper's formula does.
    """

    beta: float = 0.1
    length_normalize: bool = True


def recipe(options: Options) -> Recipe:
    """Two candidates: the chosen and the rejected response under the image."""
    chosen, rejected = 0, 1

    def objective(scores: Scores) -> Objective:
        ratios = scores.mean_log_ratios if options.length_normalize else scores.log_ratios
        losses = ipo(ratios[:, chosen], ratios[:, rejected], options.beta)
        rewards = options.beta * scores.log_ratios
        return per_example(losses, preference_metrics(scores, rewards, chosen, rejected))

    return pair_of_answers(objective)
