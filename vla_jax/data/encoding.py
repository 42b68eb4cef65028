"""From a record to what a model reads: token ids, fitted images, the key object's box."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vla_jax.data.anyres import Size, best_resolution
from vla_jax.data.anyres import layout as anyres_layout
from vla_jax.data.changes import changed_tokens
from vla_jax.data.chat import ChatTemplate, user_message
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.key_object import CUT_OFF, KeyObject, has_area, key_object
from vla_jax.data.rows import record_errors
from vla_jax.data.schema import CHOSEN, Box, DataError, Record
from vla_jax.data.tokenizer import IMAGE_TOKEN


@dataclass(frozen=True)
class Encoded:
    """One record, encoded; lists are as long as they are, padding comes with the batch.

    Attributes:
      image: fitted to the vision tower, black where there is none; with a layout, the tiles of all images
        [k y x 3].
      box: key object in pixels of that image; `box_origin` says how it was found.
      prefix: prompt ids with the image placeholder expanded.
      responses: ids of each response; `scored` marks those that count.
      lengths: of each response before it was cut to the limit.
      image_tokens: how many of the prompt's ids stand for images.
      record_id: 32-bit hash of the record's key, for keyed randomness.
      mask: pixels of the key object in the fitted image; None where the encoder has no `masks`.
      changed: tokens of each response that set the first two apart; None where it has no `changes`.
      layout: order of the image tokens in the tiles of all images; None where an image is one tile, and a
        record has at most one.
    """

    image: UInt8[np.ndarray, "*k y x 3"]
    box: Float[np.ndarray, "4"]
    box_origin: str
    prefix: Int[np.ndarray, " s"]
    responses: tuple[Int[np.ndarray, " t"], ...]
    scored: tuple[Bool[np.ndarray, " t"], ...]
    lengths: tuple[int, ...]
    image_tokens: int
    record_id: int
    mask: Bool[np.ndarray, "y x"] | None = None
    changed: tuple[Bool[np.ndarray, " t"], ...] | None = None
    layout: Int[np.ndarray, " n"] | None = None

    @property
    def truncated(self) -> int:
        """How many responses were cut."""
        return sum(len(ids) < length for ids, length in zip(self.responses, self.lengths, strict=True))


@dataclass(frozen=True)
class Encoder:
    """Turns records into ids with the model's own tokenizer and chat template.

    Attributes:
      tokenizer: a transformers fast tokenizer with a chat template that writes `<image>` for an image.
      processor: fits images into the vision tower.
      num_image_tokens: n, how often the placeholder is repeated for an image, or for one tile of it.
      responses: roles to encode, in this order.
      further_turns: append the record's further turns to the chosen response.
      max_prompt_length: most ids of a prompt, image tokens counted; a longer one is an error.
      max_completion_length: most ids of a response; a longer one is cut and counted.
      length_multiple: a batch is padded to the next multiple of it that holds its longest prompt, and its
        longest response, so that few shapes are compiled; 0 always pads to the limits.
      masks: give the key object's mask: its box where the data has none.
      changes: mark the tokens that set the first two responses apart.
      max_images: most images of a record. Where it is more than 1, all images of a batch come as tiles.
    """

    tokenizer: Any
    processor: ImageProcessor
    num_image_tokens: int
    responses: tuple[str, ...]
    further_turns: bool = False
    max_prompt_length: int = 96
    max_completion_length: int = 64
    length_multiple: int = 0
    masks: bool = False
    changes: bool = False
    max_images: int = 1

    def encode(self, record: Record, source: str = "data") -> Encoded:
        """Encodes one record.

        Raises:
          DataError: where a response is missing, empty or holds an image placeholder, an image cannot be
            read, there are too many of them, or the prompt has no place for them or is too long.
        """
        self._check_count(record, source)
        with record_errors(source, record.key):
            images = tuple(image.decoded() for image in record.images)
        sizes = [image.size for image in images]
        prefix, encoded = self._texts(record, sizes, source)
        tiles = [self.processor(image.picture) for image in images]
        key = key_object(replace(record, images=images), record.responses.get(CHOSEN, ""))
        box = self.processor.fit_box(key.box, *sizes[0]) if sizes else key.box
        limit = self.max_completion_length
        responses = tuple(ids[:limit] for ids, _ in encoded)
        return Encoded(
            image=self._image(tiles),
            box=np.array(box, np.float32),
            box_origin=CUT_OFF if has_area(key.box) and not has_area(box) else key.origin,
            prefix=prefix,
            responses=responses,
            scored=tuple(scored[:limit] for _, scored in encoded),
            lengths=tuple(len(ids) for ids, _ in encoded),
            image_tokens=sum(self.image_tokens(height, width) for height, width in sizes),
            record_id=zlib.crc32(record.key.encode()),
            mask=self._mask(key, box) if self.masks else None,
            changed=_changed(responses) if self.changes else None,
            layout=self.layout(sizes) if self.tiled else None,
        )

    def lengths(self, record: Record, source: str = "data") -> tuple[int, int]:
        """Tokens of the prompt and of the longest response, as long as `encode` gives them; decodes no image.

        Raises:
          DataError: as `encode` does, but for an image whose header can be read and whose pixels cannot.
        """
        self._check_count(record, source)
        with record_errors(source, record.key):
            # Only where images are cut into tiles does their size say how many tokens they take.
            sizes = [
                image.size if self.processor.pinpoints else self.processor.tile_size
                for image in record.images
            ]
        prefix, encoded = self._texts(record, sizes, source)
        longest = max((len(ids) for ids, _ in encoded), default=1)
        return len(prefix), min(longest, self.max_completion_length)

    def _check_count(self, record: Record, source: str) -> None:
        if len(record.images) > self.max_images:
            raise DataError(
                source,
                record.key,
                f"there are {len(record.images)} images and at most {self.max_images} are read",
                "raise data.max_images, or remove the record",
            )

    def _texts(
        self, record: Record, sizes: Sequence[Size], source: str
    ) -> tuple[Int[np.ndarray, " s"], Sequence[tuple[Int[np.ndarray, " t"], Bool[np.ndarray, " t"]]]]:
        """Ids of the prompt with its images expanded, and of each response with which of them count."""
        answers = [self._answer(record, role, source) for role in self.responses]
        asked = self._chat.prompt(record, source)
        prefix = self._expanded(asked.ids, sizes, record.key, source)
        encoded = [
            self._chat.response(asked, answer, record, self.further_turns and role == CHOSEN, source)
            for role, answer in zip(self.responses, answers, strict=True)
        ]
        return prefix, encoded

    @property
    def _chat(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer)

    @property
    def tiled(self) -> bool:
        """Whether images come as tiles with a layout: they are cut into several, or a record has several."""
        return bool(self.processor.pinpoints) or self.max_images > 1

    def _image(self, tiles: Sequence[UInt8[np.ndarray, "k y x 3"]]) -> UInt8[np.ndarray, "*k y x 3"]:
        blank = np.zeros((0 if self.tiled else 1, *self.processor.tile_size, 3), np.uint8)
        together = np.concatenate([*tiles, blank] if self.tiled or not tiles else tiles)
        return together if self.tiled else together[0]

    def _mask(self, key: KeyObject, box: Box) -> Bool[np.ndarray, "y x"]:
        """Pixels of the key object in the fitted image."""
        if key.mask is not None:
            return self.processor.fit_mask(key.mask)
        mask = np.zeros(self.processor.tile_size, bool)
        x0, y0, x1, y1 = (round(side) for side in box)
        mask[y0:y1, x0:x1] = True
        return mask

    def padded(self, prompt: int, response: int) -> tuple[int, int]:
        """How long a batch's prompts and responses are, whose longest have this many ids."""
        return (
            self._padded(prompt, self.max_prompt_length),
            self._padded(response, self.max_completion_length),
        )

    def _padded(self, longest: int, limit: int) -> int:
        if not self.length_multiple:
            return limit
        return min(max(-(-longest // self.length_multiple), 1) * self.length_multiple, limit)

    def layout(self, sizes: Sequence[Size]) -> Int[np.ndarray, " t"]:
        """The order of the tokens of images of these sizes, as `models.llava.tiled_features` reads it."""
        orders, first = [np.zeros(0, np.int64)], 0
        for height, width in sizes:
            order, tiles = self._layout_of_one(height, width)
            # 0 is the newline, whichever image's row it ends.
            orders.append(np.where(order, order + first * self.num_image_tokens, 0))
            first += tiles
        return np.concatenate(orders).astype(np.int32)

    def _layout_of_one(self, height: int, width: int) -> tuple[Int[np.ndarray, " t"], int]:
        """The order of an image's tokens, and in how many tiles they lie."""
        if not self.processor.pinpoints:
            return np.arange(1, 1 + self.num_image_tokens), 1
        side, tile = math.isqrt(self.num_image_tokens), self.processor.tile_size[0]
        rows, columns = best_resolution(height, width, self.processor.pinpoints)
        order = anyres_layout(height, width, self.processor.pinpoints, tile, side)
        return order, 1 + rows * columns // tile**2

    def image_tokens(self, height: int, width: int) -> int:
        """Tokens that an image of this size takes."""
        return len(self._layout_of_one(height, width)[0])

    def most_tiles_and_tokens(self) -> tuple[int, int]:
        """The most tiles and tokens that the images of a record take."""
        # An image of a pinpoint's own shape fills it.
        sizes = self.processor.pinpoints or (self.processor.tile_size,)
        each = [self._layout_of_one(height, width) for height, width in sizes]
        tiles, tokens = max(tiles for _, tiles in each), max(len(order) for order, _ in each)
        return self.max_images * tiles, self.max_images * tokens

    def prompt(
        self, question: str, sizes: Sequence[Size], key: str = "prompt", source: str = "data"
    ) -> Int[np.ndarray, " s"]:
        """Ids of the templated question, ready for an answer, with image placeholders expanded.

        Args:
          question: the question.
          sizes: (height, width) of each image.
          key, source: what an error calls it.

        Raises:
          DataError: where the rendered prompt has not as many placeholders as images, or is too long.
        """
        asked = self._chat.asked([user_message(question, images=len(sizes))])
        return self._expanded(asked.ids, sizes, key, source)

    def _expanded(
        self, ids: Int[np.ndarray, " s"], sizes: Sequence[Size], key: str, source: str
    ) -> Int[np.ndarray, " s"]:
        """A prompt's ids with image placeholders expanded."""
        image_id = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        if (written := int((ids == image_id).sum())) != len(sizes):
            raise DataError(
                source,
                key,
                f"the rendered prompt holds {written} {IMAGE_TOKEN} placeholders for {len(sizes)} images",
                f"take {IMAGE_TOKEN} out of the question and let the chat template write it once an image",
            )
        repeats = np.ones(len(ids), np.int64)
        repeats[ids == image_id] = [self.image_tokens(height, width) for height, width in sizes]
        expanded = np.repeat(ids, repeats)
        if len(expanded) > self.max_prompt_length:
            images = len(expanded) - len(ids) + len(sizes)
            raise DataError(
                source,
                key,
                f"the prompt is {len(expanded)} tokens long, {images} of them the images', "
                f"and the limit is {self.max_prompt_length}; prompts are never cut",
                "raise data.max_prompt_length or shorten the question",
            )
        return expanded

    def _answer(self, record: Record, role: str, source: str) -> str:
        answer = record.responses.get(role)
        if answer is None:
            raise DataError(source, record.key, f"there is no {role!r} response", f"add a {role!r} field")
        if not answer.strip():
            raise DataError(
                source, record.key, f"the {role!r} response is empty", "give it a text or remove the record"
            )
        return answer


def stamp(row: Encoded) -> int:
    """A hash of everything the model sees of a record, never 0."""
    total = zlib.crc32(row.image.tobytes())
    columns = [row.box, row.prefix, *row.responses, row.mask, row.layout]
    for column in (column for column in columns if column is not None):
        total = zlib.crc32(column.tobytes(), zlib.crc32(str(column.shape).encode(), total))
    return zlib.crc32(str(row.record_id).encode(), total) or 1


def _changed(responses: Sequence[Int[np.ndarray, " t"]]) -> tuple[Bool[np.ndarray, " t"], ...]:
    first, second, *others = responses
    unmarked = (np.zeros(len(ids), bool) for ids in others)
    return (*changed_tokens(first.tolist(), second.tolist()), *unmarked)
