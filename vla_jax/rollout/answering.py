"""Questions in words, answers in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from vla_jax.data import Encoder
from vla_jax.models import llava
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter
from vla_jax.models.parameters import Params
from vla_jax.rollout.choosing import Sampling
from vla_jax.rollout.sampling import sample
from vla_jax.views import normalise


@partial(jax.jit, static_argnames="config")
def _encode(
    params: Params,
    adapter: Adapter | None,
    config: LlavaConfig,
    tiles: UInt8[Array, "b v y x 3"],
    layouts: Int[Array, "b n"] | None,
) -> Float[Array, "b n d"]:
    pixels = normalise(tiles, config.vision.pixel_mean, config.vision.pixel_std)
    if layouts is None:
        return llava.image_features(params, config, pixels[:, 0], adapter)
    return llava.tiled_features(params, config, pixels, layouts, adapter)


@dataclass(frozen=True)
class Answerer:
    """A model that can be asked.

    Attributes:
      config, params, adapter: the model.
      encoder: its tokenizer, template and limits.
      end_ids: the tokens that end an answer.
      batch_size: questions answered at a time; the last batch is filled up, so that one program serves all.
    """

    config: LlavaConfig
    params: Params
    adapter: Adapter | None
    encoder: Encoder
    end_ids: tuple[int, ...]
    batch_size: int = 32

    def answer(
        self,
        images: Sequence[UInt8[np.ndarray, "y x 3"]],
        questions: Sequence[str],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        progress: Callable[[int], object] | None = None,
    ) -> list[str]:
        """Answers each question about its image.

        Args:
          images: RGB images of any size.
          questions: one an image.
          max_new_tokens: where an answer is cut.
          temperature: 0 answers greedily.
          seed: of the sampling.
          progress: called with the number of answers after each batch.

        Raises:
          ValueError: where there are not as many questions as images.
          DataError: where a prompt is too long, or its template does not place the image once.
        """
        if len(images) != len(questions):
            raise ValueError(f"{len(images)} images but {len(questions)} questions; give one each")
        sampling = Sampling(max_new_tokens, self.end_ids, temperature)
        answers: list[str] = []
        for start in range(0, len(questions), self.batch_size):
            chunk = slice(start, start + self.batch_size)
            key = jax.random.fold_in(jax.random.key(seed), start)
            answers += self._answer(images[chunk], questions[chunk], sampling, key)
            if progress is not None:
                progress(len(answers) - start)
        return answers

    def _answer(
        self,
        images: Sequence[UInt8[np.ndarray, "y x 3"]],
        questions: Sequence[str],
        sampling: Sampling,
        key: jax.Array,
    ) -> list[str]:
        shape = (self.batch_size, self.encoder.max_prompt_length)
        tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
        mask[:, -1] = True
        most_tiles, most_tokens = self.encoder.most_tiles_and_tokens()
        tiles = np.zeros((self.batch_size, most_tiles, *self.encoder.processor.tile_size, 3), np.uint8)
        layouts = np.zeros((self.batch_size, most_tokens), np.int32)
        for i, (image, question) in enumerate(zip(images, questions, strict=True)):
            size = image.shape[:2]
            ids = self.encoder.prompt(question, [size])
            tokens[i, -len(ids) :], mask[i, -len(ids) :] = ids, True
            own = self.encoder.processor(image)
            tiles[i, : len(own)] = own
            order = self.encoder.layout([size])
            layouts[i, : len(order)] = order
        sampled = sample(
            self.params,
            self.adapter,
            self.config,
            _encode(self.params, self.adapter, self.config, tiles, layouts if self.config.anyres else None),
            tokens,
            mask,
            sampling,
            key,
        )
        ids, kept = np.asarray(sampled.tokens[:, 0]), np.asarray(sampled.mask[:, 0])
        return [
            self.encoder.tokenizer.decode(row[keep], skip_special_tokens=True).strip()
            for row, keep in zip(ids[: len(questions)], kept[: len(questions)], strict=True)
        ]
