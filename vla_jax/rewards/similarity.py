"""How alike two texts are in meaning, and a stand-in that only compares words."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

# Texts in, a row each out.
Embed = Callable[[Sequence[str]], Float[np.ndarray, "n d"]]

_WORD = re.compile(r"\w+")


class Similarity(Protocol):
    """Compares texts pair by pair.

    Attributes:
      name: what it is, for the log.
    """

    @property
    def name(self) -> str:
        """What it is, for the log."""
        ...

    def __call__(self, first: Sequence[str], second: Sequence[str]) -> Float[np.ndarray, " n"]:
        """From 1, for texts that are alike, down to -1."""
        ...


@dataclass(frozen=True)
class EmbeddingSimilarity:
    """The cosine of two texts' embeddings.

    Attributes:
      embed: of each text its embedding, of any length.
      name: what it is, for the log.
    """

    embed: Embed
    name: str

    def __call__(self, first: Sequence[str], second: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Cosines, float32; 0 where an embedding is zero.

        Raises:
          ValueError: where there are not as many texts on either side.
        """
        _check(first, second)
        if not first:
            return np.zeros(0, np.float32)
        rows = np.asarray(self.embed([*first, *second]), np.float32)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return np.einsum("nd,nd->n", *np.split(rows, 2))


@dataclass(frozen=True)
class LexicalSimilarity:
    """The cosine of two texts' word counts, for where there is no sentence encoder.

    It knows no synonyms and takes two colours for as different as two words can be.

    Attributes:
      name: says in the log that it is a stand-in.
    """

    name: str = "lexical (stand-in for a sentence encoder)"

    def __call__(self, first: Sequence[str], second: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Cosines, float32, from 0 to 1; case and punctuation do not count, and no words are like no words.

        Raises:
          ValueError: where there are not as many texts on either side.
        """
        _check(first, second)
        pairs = zip(map(_counts, first), map(_counts, second), strict=True)
        return np.array([_cosine(one, other) for one, other in pairs], np.float32)


def _check(first: Sequence[str], second: Sequence[str]) -> None:
    if len(first) != len(second):
        raise ValueError(f"{len(first)} texts are to be compared with {len(second)}; give them in pairs")


def _counts(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


def _cosine(one: Counter[str], other: Counter[str]) -> float:
    if not one or not other:
        return float(one == other)
    shared = sum(count * other[word] for word, count in one.items())
    lengths = [np.sqrt(sum(count**2 for count in counts.values())) for counts in (one, other)]
    return shared / (lengths[0] * lengths[1])
