"""What both sides of `step_vs_trl.py` are given and give back, free of either framework: settings, preference
pairs of drawn images and random words, and the forms of an answer."""

import resource
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

WORDS = 20_000
QUESTION_WORDS = (15, 22)
ANSWER_WORDS = (90, 180)
SIDES = (300, 700)  # pixels


@dataclass(frozen=True)
class Settings:
    """One comparison.

    Attributes:
      checkpoint: the Hugging Face folder that all read.
      adapter: the PEFT folder of the adapter that all begin with; the first PyTorch side writes it.
      steps: how many are taken, warm-up included.
      gradient_checkpointing: of the PyTorch side.
      pairs: preference pairs a step.
      beta: scale of the rewards.
      rank, alpha: of LoRA.
      learning_rate: constant, and large, so that three steps move the rewards to where they can be compared.
      beta1, beta2, epsilon, weight_decay, max_grad_norm: AdamW's; epsilon is the one that ours always has.
    """

    checkpoint: Path
    adapter: Path
    steps: int
    gradient_checkpointing: bool = False
    pairs: int = 2
    beta: float = 0.1
    rank: int = 8
    alpha: float = 8.0
    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0


class Pair(NamedTuple):
    """One question about one image, with a chosen and a rejected answer."""

    key: str
    image: UInt8[np.ndarray, "y x 3"]
    question: str
    chosen: str
    rejected: str


class Read(NamedTuple):
    """What a model reads of a prompt with one answer: its ids, and how many at the end are the answer's."""

    ids: tuple[int, ...]
    scored: int


class Ready(NamedTuple):
    """A side before its first step.

    Attributes:
      parameters: of the model, the adapter's apart.
      reads: of each batch, of each pair, the chosen and the rejected answer's.
      prepare_seconds: median time to make one batch of its records, not part of a step.
      bytes: most memory so far, with model and batches there and nothing computed.
      compile_seconds: spent on compiling the step, for all shapes of batches.
      flops: of each batch's step; none where they are not counted.
    """

    parameters: int
    reads: list[list[tuple[Read, ...]]]
    prepare_seconds: float
    bytes: int
    compile_seconds: float = 0.0
    flops: tuple[int, ...] = ()


class Step(NamedTuple):
    """A step taken: how long it took, and what was logged of the model before its update."""

    seconds: float
    metrics: dict[str, float]


@cache
def words() -> tuple[str, ...]:
    """Made-up words, all different."""
    rng = np.random.default_rng(0)
    consonants, vowels = list("bcdfghjklmnprstvwz"), list("aeiou")
    made: dict[str, None] = {}
    while len(made) < WORDS:
        syllables = rng.integers(2, 5)
        made["".join(rng.choice(consonants) + rng.choice(vowels) for _ in range(syllables))] = None
    return tuple(made)


def make_pairs(count: int, seed: int = 0) -> list[Pair]:
    """The first `count` pairs of an endless list."""
    return [_pair(index, np.random.default_rng((seed, index))) for index in range(count)]


def peak_bytes() -> int:
    """The most memory that this process ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _pair(index: int, rng: np.random.Generator) -> Pair:
    return Pair(
        f"pair {index}",
        _image(rng),
        _text(rng, QUESTION_WORDS) + "?",
        _text(rng, ANSWER_WORDS) + ".",
        _text(rng, ANSWER_WORDS) + ".",
    )


def _text(rng: np.random.Generator, lengths: tuple[int, int]) -> str:
    return " ".join(rng.choice(words(), rng.integers(lengths[0], lengths[1] + 1)))


def _image(rng: np.random.Generator) -> UInt8[np.ndarray, "y x 3"]:
    """A gradient with discs and noise on it: smooth regions, edges and texture, as photographs have."""
    height, width = rng.integers(*SIDES, 2)
    y, x = np.mgrid[:height, :width] / SIDES[1]
    gradient = rng.uniform(40, 215, 3) + 80 * (
        y[..., None] * rng.uniform(-1, 1, 3) + x[..., None] * rng.uniform(-1, 1, 3)
    )
    canvas = Image.fromarray(gradient.clip(0, 255).astype(np.uint8))
    brush = ImageDraw.Draw(canvas)
    for _ in range(12):
        centre, radius = rng.uniform(0, (width, height)), rng.uniform(10, 120)
        colour = tuple(int(channel) for channel in rng.integers(0, 256, 3))
        brush.ellipse((*(centre - radius), *(centre + radius)), fill=colour)
    noisy = np.asarray(canvas) + rng.normal(0, 8, (height, width, 1))
    return noisy.clip(0, 255).astype(np.uint8)
