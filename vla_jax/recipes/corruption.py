"""Corrupted responses that stay near the chosen one: the alignment study's BDHS, algorithm 1, on the host.

Every sentence of the chosen response is cut at a random token and completed by a model that sees little of
the image, given the true sentences before it. What is completed then is joined, and made anew while it still
means what the chosen response means. How a model completes is handed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from vla_jax.rollout.completions import Beginning
from vla_jax.rollout.sentences import exchanged, split

# (try, from 1; beginnings) -> the tokens that complete each, without the end of sequence.
Complete = Callable[[int, Sequence[Beginning]], Sequence[Sequence[int]]]
# (texts, others) -> how alike each two are, 1 being the same.
Similarity = Callable[[Sequence[str], Sequence[str]], Float[np.ndarray, " n"]]


class Cut(NamedTuple):
    """One sentence, cut.

    Attributes:
      start: the token of the chosen response at which it begins.
      kept: the ids before the cut.
      exchanged: whether its Yes or No was exchanged.
    """

    start: int
    kept: tuple[int, ...]
    exchanged: bool


class Corrupted(NamedTuple):
    """A corrupted response.

    Attributes:
      tokens: its ids, without the end of sequence.
      text: what they say.
      tries: how many it took.
      similarity: of its text to the chosen one's.
      cuts: of its sentences; none where the last try was made without guidance.
    """

    tokens: tuple[int, ...]
    text: str
    tries: int
    similarity: float
    cuts: tuple[Cut, ...]


@dataclass(frozen=True)
class Corruption:
    """How chosen responses are corrupted.

    Attributes:
      tokenizer: a fast one of transformers.
      similarity: how alike two texts are.
      tries: N_BDHS, the most; of several, the last is made without the chosen response and kept as it is.
      similar: ε_s, the similarity from which on a response is made anew.
      longest: responses are cut to so many tokens, before they are compared; None cuts none.
    """

    tokenizer: Any
    similarity: Similarity
    tries: int = 5
    similar: float = 0.97
    longest: int | None = None

    def __call__(
        self,
        chosen: Sequence[Sequence[int]],
        record_ids: Sequence[int],
        complete: Complete,
        seed: Sequence[int],
    ) -> list[Corrupted]:
        """One corrupted response for each chosen one.

        Cuts and exchanges are drawn from (seed, record, try, sentence), whatever else is in the batch.

        Args:
          chosen: ids of each chosen response, without special ones.
          record_ids: what numbers each record.
          complete: the model.
          seed: whole numbers.
        """
        said = [self._text(tokens) for tokens in chosen]
        made: dict[int, Corrupted] = {}
        for attempt in range(1, self.tries + 1):
            pending = [row for row in range(len(chosen)) if row not in made]
            if not pending:
                break
            last = attempt == self.tries
            cuts = {
                row: ()
                if last and self.tries > 1
                else self._cuts(chosen[row], (*seed, record_ids[row], attempt))
                for row in pending
            }
            drafts = self._completed(chosen, cuts, partial(complete, attempt))
            texts = [self._text(drafts[row]) for row in pending]
            alike = self.similarity(texts, [said[row] for row in pending])
            for row, text, similarity in zip(pending, texts, alike, strict=True):
                if last or similarity < self.similar:
                    made[row] = Corrupted(drafts[row], text, attempt, float(similarity), cuts[row])
        return [made[row] for row in range(len(chosen))]

    def _cuts(self, chosen: Sequence[int], seed: Sequence[int]) -> tuple[Cut, ...]:
        cuts = []
        for number, (start, end) in enumerate(split(chosen, self.tokenizer)):
            rng = np.random.default_rng([*seed, number])
            sentence = tuple(chosen[start:end])
            other = exchanged(sentence, self.tokenizer) if rng.random() >= 0.5 else None
            # Something is kept and something made anew, where there is enough; an exchanged word is kept.
            least = min(1, len(sentence) - 1)
            if other is not None:
                sentence, least = other
            place = int(rng.integers(least, max(least, len(sentence) - 1), endpoint=True))
            cuts.append(Cut(start, sentence[:place], other is not None))
        return tuple(cuts)

    def _completed(
        self,
        chosen: Sequence[Sequence[int]],
        cuts: dict[int, tuple[Cut, ...]],
        complete: Callable[[Sequence[Beginning]], Sequence[Sequence[int]]],
    ) -> dict[int, tuple[int, ...]]:
        """Responses of the rows that were cut, each row's sentences joined; without cuts, whole ones."""
        beginnings, kept = [], []
        for row, sentences in cuts.items():
            for number, cut in enumerate(sentences):
                true = tuple(chosen[row][: cut.start])
                beginnings.append(Beginning(row, number, (*true, *cut.kept), whole=False))
                kept.append(cut.kept)
            if not sentences:
                beginnings.append(Beginning(row, 0, (), whole=True))
                kept.append(())
        responses: dict[int, tuple[int, ...]] = dict.fromkeys(cuts, ())
        for beginning, first, rest in zip(beginnings, kept, complete(beginnings), strict=True):
            responses[beginning.row] += (*first, *rest)
        return {row: response[: self.longest] for row, response in responses.items()}

    def _text(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True).strip()
