"""A model of ours as the judge, with the annotator's prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from vla_jax.rewards.annotating import prompt
from vla_jax.rewards.blind import Readings
from vla_jax.rewards.judging import JudgeError, Shown
from vla_jax.rewards.reading import read

# Images and prompts in, replies out: the sampler's, which this floor does not know.
Generate = Callable[[Sequence[UInt8[np.ndarray, "y x 3"]], Sequence[str]], Sequence[str]]


@dataclass(frozen=True)
class CheckpointJudge:
    """Asks a model in this process; see `BlindJudge.judge`.

    Attributes:
      generate: answers prompts about images.
    """

    generate: Generate

    def __call__(self, asked: Sequence[Shown]) -> Readings:
        """All readings.

        Raises:
          JudgeError: where there is not a reply a prompt.
        """
        replies = self.generate([one.image for one in asked], [prompt(one) for one in asked])
        if len(replies) != len(asked):
            raise JudgeError(f"the judge was given {len(asked)} prompts and gave {len(replies)} replies")
        for place, reply in enumerate(replies):
            yield place, read(reply)
