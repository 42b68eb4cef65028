"""The judge of a run whose method has its responses compared."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from vla_jax.generate import answerer, most_image_tokens
from vla_jax.interop import load_model
from vla_jax.parallel import from_first, is_first
from vla_jax.rewards import Comparison, Judge, JudgeConfig, Verdict, opened_judge
from vla_jax.rewards.checkpoint_judge import Generate

# The judge that is no judge of words: the run's reward model compares tokens.
REWARD_MODEL = "reward_model"
# Comparisons that a checkpoint reads at a time, and room for the words around them.
_ROWS, _WORDS = 8, 1024


@contextmanager
def judge_of(config: ConfigDict, workdir: Path) -> Iterator[Judge | None]:
    """The judge that the section `rewards.judge` asks for; None for none, and for the reward model.

    Of several processes the first one asks, and tells the others.

    Args:
      config: the run's.
      workdir: where verdicts are kept.
    """
    settings = JudgeConfig(**config.rewards.judge.to_dict())
    if settings.kind in ("", REWARD_MODEL):
        yield None
    elif not is_first():
        yield _FromFirst(settings.kind, None)
    else:
        room = _WORDS + config.data.max_prompt_length + 2 * config.data.max_completion_length
        with opened_judge(
            settings, workdir=workdir, seed=config.seed, generate=partial(_generate, room)
        ) as judge:
            assert judge is not None
            yield judge if jax.process_count() == 1 else _FromFirst(judge.name, judge)


def _generate(room: int, folder: str, max_new_tokens: int) -> Generate:
    """A checkpoint that answers prompts of at most so many tokens beside the image's."""
    model = load_model(Path(folder))
    asked = answerer(model, most_image_tokens(model) + room, _ROWS)
    return partial(asked.answer, max_new_tokens=max_new_tokens)


@dataclass(frozen=True)
class _FromFirst:
    """Asks on the first process; all have its verdicts, without the words."""

    name: str
    judge: Judge | None

    @property
    def spent(self) -> Mapping[str, float]:
        """What the first process has spent."""
        return {} if self.judge is None else self.judge.spent

    def __call__(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """A verdict a comparison."""
        verdicts = [] if self.judge is None else self.judge(comparisons)
        sides = [-1 if verdict.preferred is None else verdict.preferred for verdict in verdicts]
        told = from_first(np.array(sides if verdicts else [-1] * len(comparisons), np.int32))
        return verdicts or [Verdict(None if side < 0 else int(side)) for side in told]  # type: ignore[arg-type]
