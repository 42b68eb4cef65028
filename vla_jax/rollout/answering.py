"""Questions in words, answers in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from vla_jax.data import Encoder
from vla_jax.models import llava
from vla_jax.models.compute import Compute
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter
from vla_jax.models.parameters import Params
from vla_jax.rollout.beams import Beams, search
from vla_jax.rollout.choosing import Sampling
from vla_jax.rollout.decoding import decode
from vla_jax.rollout.prefilling import prefill
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
      compute: how the language model is computed.
    """

    config: LlavaConfig
    params: Params
    adapter: Adapter | None
    encoder: Encoder
    end_ids: tuple[int, ...]
    batch_size: int = 32
    compute: Compute = Compute()

    def answer(
        self,
        images: Sequence[UInt8[np.ndarray, "y x 3"]],
        questions: Sequence[str],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        num_beams: int = 1,
        stop: Sequence[str] = (),
        seed: int = 0,
        progress: Callable[[int], object] | None = None,
    ) -> list[str]:
        """Answers each question about its image.

        Args:
          images: RGB images of any size.
          questions: one an image.
          max_new_tokens: where an answer is cut.
          temperature, top_k, top_p: see `Sampling`; temperature 0 answers greedily.
          num_beams: more than one searches for the likeliest answer with so many beams.
          stop: an answer ends before the first of these that it holds.
          seed: of the sampling.
          progress: called with the number of answers after each batch.

        Raises:
          ValueError: where there are not as many questions as images, or the options contradict each other.
          DataError: where a prompt is too long, or its template does not place the image once.
        """
        if len(images) != len(questions):
            raise ValueError(f"{len(images)} images but {len(questions)} questions; give one each")
        sampling = Sampling(max_new_tokens, self.end_ids, temperature, top_k, top_p, self._sequences(stop))
        answers: list[str] = []
        for start in range(0, len(questions), self.batch_size):
            chunk = slice(start, start + self.batch_size)
            key = jax.random.fold_in(jax.random.key(seed), start)
            texts = self._answer(images[chunk], questions[chunk], sampling, num_beams, key)
            answers += [_before(text, stop) for text in texts]
            if progress is not None:
                progress(len(answers) - start)
        return answers

    def _answer(
        self,
        images: Sequence[UInt8[np.ndarray, "y x 3"]],
        questions: Sequence[str],
        sampling: Sampling,
        num_beams: int,
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
        model = self.params, self.adapter, self.config
        features = _encode(*model, tiles, layouts if self.config.anyres else None)
        prefilled = prefill(*model, features, tokens, mask, compute=self.compute)
        if num_beams > 1:
            sampled, _ = search(*model, prefilled, sampling, Beams(num_beams), compute=self.compute)
        else:
            sampled = decode(*model, prefilled, sampling, key, compute=self.compute)
        ids, kept = np.asarray(sampled.tokens[:, 0]), np.asarray(sampled.mask[:, 0])
        return [
            self.encoder.tokenizer.decode(row[keep], skip_special_tokens=True).strip()
            for row, keep in zip(ids[: len(questions)], kept[: len(questions)], strict=True)
        ]

    def _sequences(self, stop: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Tokens of stop strings. Where a model spells one otherwise, its answer is cut, but ends later."""
        return tuple(tuple(self.encoder.tokenizer.encode(text, add_special_tokens=False)) for text in stop)


def _before(text: str, stop: Sequence[str]) -> str:
    """The text up to the first of these."""
    ends = [place for place in map(text.find, stop) if place >= 0]
    return text[: min(ends)].strip() if ends else text
