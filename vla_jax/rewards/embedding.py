"""Texts to embeddings, by a sentence encoder: tokenised, in batches of few shapes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from vla_jax.models.parameters import Params
from vla_jax.models.sentence_encoder import SentenceEncoderConfig, sentence_embeddings

_SHORTEST = 16

_embed = partial(jax.jit, static_argnums=1)(sentence_embeddings)


@dataclass(frozen=True)
class SentenceEmbedder:
    """A sentence encoder that reads text.

    Attributes:
      config, params: the encoder.
      tokenizer: a transformers fast tokenizer.
      max_length: where a text is cut, in tokens.
      batch_size: texts at a time; the last batch is filled up. Lengths are padded to a power of two, so that
        there is a program for each, and no more.
    """

    config: SentenceEncoderConfig
    params: Params
    tokenizer: Any
    max_length: int
    batch_size: int = 32

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """A float32 embedding a text."""
        rows = [
            self._batch(list(texts[start : start + self.batch_size]))
            for start in range(0, len(texts), self.batch_size)
        ]
        return np.concatenate(rows) if rows else np.zeros((0, self.config.hidden_size), np.float32)

    def _batch(self, texts: list[str]) -> Float[np.ndarray, "n d"]:
        ids = self.tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]
        longest = max(map(len, ids))
        length = min(max(_SHORTEST, 1 << (longest - 1).bit_length()), self.max_length)
        tokens = np.zeros((self.batch_size, length), np.int32)
        valid = np.zeros(tokens.shape, bool)
        for row, text in enumerate(ids):
            tokens[row, : len(text)], valid[row, : len(text)] = text, True
        embeddings = _embed(self.params, self.config, tokens, valid)
        return np.asarray(embeddings, np.float32)[: len(texts)]
