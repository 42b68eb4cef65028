"""Yes/no probes for object hallucination, in the three splits of POPE (Li et al. 2023, arXiv:2305.10355)."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from vla_jax.data.world.categories import CATEGORIES, CATEGORY
from vla_jax.data.world.config import WorldConfig
from vla_jax.data.world.draws import sample
from vla_jax.data.world.questions import existence_question
from vla_jax.data.world.scenes import Scene, categories_by_frequency

Split = Literal["random", "popular", "adversarial"]
SPLITS: tuple[Split, ...] = get_args(Split)

# The popular split asks for absent categories among this many of the most frequent.
_POPULAR = 8


@dataclass(frozen=True)
class Probe:
    """One question whether an object is in the picture.

    Attributes:
      question: "Is there a cup in the picture?"
      answer: the truth.
      split: where the absent objects of its split come from: "random" from all categories, "popular" from
        those most frequent in biased scenes, "adversarial" from the partners of present objects.
    """

    question: str
    answer: bool
    split: Split


def draw_probes(rng: np.random.Generator, config: WorldConfig, scene: Scene) -> tuple[Probe, ...]:
    """For each split `config.probes_per_split` probes, half of them about present objects.

    Where a scene leaves too few partners absent, popular categories fill the adversarial split.
    """
    half = config.probes_per_split // 2
    missing = [category.name for category in CATEGORIES if category.name not in scene.names]
    popular = [name for name in categories_by_frequency(config) if name in missing][:_POPULAR]
    partners = [name for name in missing if CATEGORY[name].partner in scene.names]
    rivals = sample(rng, partners, half)
    rivals += sample(rng, [name for name in popular if name not in rivals], half - len(rivals))
    absent = {
        "random": sample(rng, missing, half),
        "popular": sample(rng, popular, half),
        "adversarial": rivals,
    }
    return tuple(
        Probe(existence_question(name), answer, split)
        for split in SPLITS
        for names, answer in ((sample(rng, scene.names, half), True), (absent[split], False))
        for name in names
    )
