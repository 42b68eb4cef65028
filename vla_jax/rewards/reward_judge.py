"""A reward model as the judge: the response with the greater reward is the better one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from vla_jax.rewards.judging import Comparison, JudgeError, Verdict

# Images, questions and responses in, rewards out.
Score = Callable[
    [Sequence[UInt8[np.ndarray, "y x 3"]], Sequence[str], Sequence[str]], Float[np.ndarray, " n"]
]


@dataclass(frozen=True)
class RewardJudge:
    """Reads one response at a time, so that no order has to be drawn.

    Attributes:
      score: the reward model.
      name: what it is, for the log.
    """

    score: Score
    name: str = "reward_model"

    @property
    def spent(self) -> Mapping[str, float]:
        """Nothing."""
        return {}

    def __call__(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """A verdict a comparison; equal rewards are a tie.

        Raises:
          JudgeError: where a reward is not finite.
        """
        if not comparisons:
            return []
        images = [comparison.image for comparison in comparisons]
        questions = [comparison.question for comparison in comparisons]
        responses = [c.first for c in comparisons] + [c.second for c in comparisons]
        rewards = np.asarray(self.score(images * 2, questions * 2, responses), np.float64)
        if rewards.shape != (len(responses),) or not np.isfinite(rewards).all():
            raise JudgeError(
                f"{self.name} gave {rewards.shape} rewards for {len(responses)} responses, "
                f"{int((~np.isfinite(rewards)).sum())} of them not finite"
            )
        first, second = np.split(rewards, 2)
        return [
            Verdict(None if a == b else int(b > a), reply=f"{a:.4g} against {b:.4g}")  # type: ignore[arg-type]
            for a, b in zip(first, second, strict=True)
        ]
