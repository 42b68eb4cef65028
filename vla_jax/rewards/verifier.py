"""How well single words fit an image, by two towers that know images and texts: CLIP or SigLIP."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from vla_jax.models import clip
from vla_jax.models.clip import ClipConfig
from vla_jax.models.parameters import Params
from vla_jax.rewards.entities import Entities, EntityTokens
from vla_jax.views import normalise

# Texts are embedded so many at a time, the last ones filled up, so that few programs serve all.
_TEXTS_AT_ONCE = 64


class Verified(NamedTuple):
    """What a verifier says of responses.

    Attributes:
      scores: of the word that a token belongs to; 0 where it names nothing.
      entities: True at the tokens that stand for a word that names an object.
      words: those words of each response, and their scores.
    """

    scores: Float[np.ndarray, "b r t"]
    entities: Bool[np.ndarray, "b r t"]
    words: list[list[list[tuple[EntityTokens, float]]]]


@dataclass(frozen=True)
class Verifier:
    """Scores words against images; reads nothing else of a scene.

    An image is embedded once a call, a word once for all.

    Attributes:
      config, params: both towers.
      tokenizer: frames texts as the text tower wants them.
      entities: the words that are scored.
      normalize: scale embeddings to length 1, so that a score is a cosine.
      scale: what the product of two embeddings is multiplied by.
      template: how a word is put to the text tower.
    """

    config: ClipConfig
    params: Params
    tokenizer: Any
    entities: Entities
    normalize: bool = True
    scale: float = 100.0
    template: str = "{}"
    _known: dict[str, Float[np.ndarray, " e"]] = field(default_factory=dict, repr=False, compare=False)

    def verify(
        self,
        images: UInt8[np.ndarray, "b y x 3"],
        tokenizer: Any,
        tokens: Int[np.ndarray, "b r t"],
        mask: Bool[np.ndarray, "b r t"],
        every_token: bool = False,
    ) -> Verified:
        """Scores every word of responses that names an object.

        Args:
          images: as the model that answered sees them; one in tiles is shown by its first.
          tokenizer: of that model.
          tokens, mask: its responses, right-padded.
          every_token: a word's score stands at every token of it, not at its last alone.
        """
        tokens, mask = np.asarray(tokens), np.asarray(mask)
        found = [
            [self.entities.tokens(tokenizer, ids[kept]) for ids, kept in zip(row, rows_mask, strict=True)]
            for row, rows_mask in zip(tokens, mask, strict=True)
        ]
        table = self.table(images, [entity.word for row in found for words in row for entity in words])
        scores, entities = np.zeros(tokens.shape, np.float32), np.zeros(tokens.shape, bool)
        scored: list[list[list[tuple[EntityTokens, float]]]] = []
        for i, row in enumerate(found):
            scored.append([])
            for j, words in enumerate(row):
                scored[i].append([(entity, table[entity.word][i]) for entity in words])
                for entity, score in scored[i][j]:
                    span = slice(entity.first if every_token else entity.last, entity.last + 1)
                    scores[i, j, span], entities[i, j, span] = score, True
        return Verified(scores, entities, scored)

    def table(self, images: UInt8[np.ndarray, "b y x 3"], texts: Sequence[str]) -> dict[str, list[float]]:
        """Text -> its score under every image, in one matrix product."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        products = self.embed_texts(distinct) @ self.embed_images(images).T
        return dict(zip(distinct, (self.scale * products).tolist(), strict=True))

    def embed_images(self, images: UInt8[np.ndarray, "b y x 3"]) -> Float[np.ndarray, "b e"]:
        """Images in the common space."""
        return np.asarray(_embed_images(self.params, self.config, self.normalize, images))

    def embed_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n e"]:
        """Texts in the common space; those that were asked for before are remembered."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        longest = self.config.text.max_positions
        for start in range(0, len(new), _TEXTS_AT_ONCE):
            part = new[start : start + _TEXTS_AT_ONCE]
            filled = [self.template.format(text) for text in part] + [""] * (_TEXTS_AT_ONCE - len(part))
            tokens = self.tokenizer(
                filled, padding="max_length", max_length=longest, truncation=True, return_tensors="np"
            )["input_ids"]
            embedded = _embed_texts(self.params, self.config, self.normalize, tokens)
            self._known.update(zip(part, np.asarray(embedded), strict=False))
        return np.stack([self._known[text] for text in texts])


@partial(jax.jit, static_argnums=(1, 2))
def _embed_images(
    params: Params, config: ClipConfig, unit: bool, images: UInt8[Array, "b y x 3"]
) -> Float[Array, "b e"]:
    side = config.vision.image_size
    if images.shape[1:3] != (side, side):
        images = jax.image.resize(images.astype(jnp.float32), (len(images), side, side, 3), "cubic").clip(
            0, 255
        )
    pixels = normalise(images, config.vision.pixel_mean, config.vision.pixel_std)
    return clip.image_embeddings(params, config, pixels, unit)


@partial(jax.jit, static_argnums=(1, 2))
def _embed_texts(
    params: Params, config: ClipConfig, unit: bool, tokens: Int[Array, "n t"]
) -> Float[Array, "n e"]:
    return clip.text_embeddings(params, config, tokens, unit)
