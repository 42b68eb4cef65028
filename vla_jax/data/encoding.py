"""From a record to what a model reads: token ids, a fitted image, the key object's box."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vla_jax.data.anyres import layout as anyres_layout
from vla_jax.data.changes import changed_tokens
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.key_object import CUT_OFF, KeyObject, has_area, key_object
from vla_jax.data.schema import CHOSEN, Box, DataError, Record
from vla_jax.data.tokenizer import IMAGE_TOKEN


@dataclass(frozen=True)
class Encoded:
    """One record, encoded; lists are as long as they are, padding comes with the batch.

    Attributes:
      image: fitted to the vision tower; of a model that reads tiles, all of them [k y x 3].
      box: key object in pixels of that image; `box_origin` says how it was found.
      prefix: prompt ids with the image placeholder expanded.
      responses: ids of each response; `scored` marks those that count.
      truncated: how many responses were cut to the length limit.
      record_id: 32-bit hash of the record's key, for keyed randomness.
      mask: pixels of the key object in the fitted image; None where the encoder has no `masks`.
      changed: tokens of each response that set the first two apart; None where it has no `changes`.
      layout: order of the image tokens of an image in tiles; None elsewhere.
    """

    image: UInt8[np.ndarray, "*k y x 3"]
    box: Float[np.ndarray, "4"]
    box_origin: str
    prefix: Int[np.ndarray, " s"]
    responses: tuple[Int[np.ndarray, " t"], ...]
    scored: tuple[Bool[np.ndarray, " t"], ...]
    truncated: int
    record_id: int
    mask: Bool[np.ndarray, "y x"] | None = None
    changed: tuple[Bool[np.ndarray, " t"], ...] | None = None
    layout: Int[np.ndarray, " n"] | None = None


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

    def encode(self, record: Record, source: str = "data") -> Encoded:
        """Encodes one record.

        Raises:
          DataError: where a response is missing, empty or holds an image placeholder, or the prompt has no
            place for the image or is too long.
        """
        answers = [self._answer(record, role, source) for role in self.responses]
        prompt = self._prompt(record.question)
        prompt_ids = self._ids(prompt)[0]
        key = key_object(record, record.responses.get(CHOSEN, ""))
        height, width = record.image.shape[:2]
        box = self.processor.fit_box(key.box, height, width)
        prefix = self._expanded(prompt_ids, self.image_tokens(height, width), record.key, source)
        encoded = [
            self._response(record, prompt, prompt_ids, answer, self.further_turns and role == CHOSEN, source)
            for role, answer in zip(self.responses, answers, strict=True)
        ]
        limit = self.max_completion_length
        tiles = self.processor(record.image)
        layout = self.layout(height, width)
        responses = tuple(ids[:limit] for ids, _ in encoded)
        return Encoded(
            image=tiles[0] if layout is None else tiles,
            box=np.array(box, np.float32),
            box_origin=CUT_OFF if has_area(key.box) and not has_area(box) else key.origin,
            prefix=prefix,
            responses=responses,
            scored=tuple(scored[:limit] for _, scored in encoded),
            truncated=sum(len(ids) > limit for ids, _ in encoded),
            record_id=zlib.crc32(record.key.encode()),
            mask=self._mask(key, box) if self.masks else None,
            changed=_changed(responses) if self.changes else None,
            layout=layout,
        )

    def _mask(self, key: KeyObject, box: Box) -> Bool[np.ndarray, "y x"]:
        """Pixels of the key object in the fitted image."""
        if key.mask is not None:
            return self.processor.fit_mask(key.mask)
        mask = np.zeros(self.processor.tile_size, bool)
        x0, y0, x1, y1 = (round(side) for side in box)
        mask[y0:y1, x0:x1] = True
        return mask

    def padded_length(self, longest: int, limit: int) -> int:
        """How long the rows of a batch are whose longest has `longest` ids."""
        if not self.length_multiple:
            return limit
        return min(max(-(-longest // self.length_multiple), 1) * self.length_multiple, limit)

    def layout(self, height: int, width: int) -> Int[np.ndarray, " t"] | None:
        """The order of an image's tokens where it is cut into tiles (see anyres.py); None where it is not."""
        if not self.processor.pinpoints:
            return None
        side = math.isqrt(self.num_image_tokens)
        return anyres_layout(height, width, self.processor.pinpoints, self.processor.tile_size[0], side)

    def image_tokens(self, height: int, width: int) -> int:
        """Tokens that an image of this size takes."""
        order = self.layout(height, width)
        return self.num_image_tokens if order is None else len(order)

    def most_tiles_and_tokens(self) -> tuple[int, int]:
        """The most tiles and tokens that any image takes."""
        if not self.processor.pinpoints:
            return 1, self.num_image_tokens
        side = self.processor.tile_size[0]
        tiles = max(height * width // side**2 for height, width in self.processor.pinpoints)
        # An image of a pinpoint's own shape fills it.
        return 1 + tiles, max(self.image_tokens(height, width) for height, width in self.processor.pinpoints)

    def prompt(
        self, question: str, height: int, width: int, key: str = "prompt", source: str = "data"
    ) -> Int[np.ndarray, " s"]:
        """Ids of the templated question, ready for an answer, with the image placeholder expanded.

        Args:
          question: the question.
          height, width: of the image, in pixels.
          key, source: what an error calls it.

        Raises:
          DataError: where the rendered prompt holds no or several image placeholders, or is too long.
        """
        ids, _ = self._ids(self._prompt(question))
        return self._expanded(ids, self.image_tokens(height, width), key, source)

    def _prompt(self, question: str) -> str:
        return self._render([_user(question, image=True)], answer_next=True)

    def _expanded(
        self, ids: Int[np.ndarray, " s"], image_tokens: int, key: str, source: str
    ) -> Int[np.ndarray, " s"]:
        """A prompt's ids with the image placeholder expanded."""
        image_id = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        places = np.flatnonzero(ids == image_id)
        if len(places) != 1:
            raise DataError(
                source,
                key,
                f"the rendered prompt holds {len(places)} {IMAGE_TOKEN} placeholders for one image",
                f"take {IMAGE_TOKEN} out of the question and let the chat template write it once",
            )
        expanded = np.insert(ids, places[0], np.full(image_tokens - 1, image_id))
        if len(expanded) > self.max_prompt_length:
            raise DataError(
                source,
                key,
                f"the prompt is {len(expanded)} tokens long, {image_tokens} of them the image's, "
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

    def _response(
        self,
        record: Record,
        prompt: str,
        prompt_ids: Int[np.ndarray, " s"],
        answer: str,
        further_turns: bool,
        source: str,
    ) -> tuple[Int[np.ndarray, " t"], Bool[np.ndarray, " t"]]:
        """Ids of what follows the prompt, end of sequence included, and which of them the loss counts."""
        messages, text = [_user(record.question, image=True), _message("assistant", answer)], prompt
        spans = []
        for turn in (None, *(record.further_turns if further_turns else ())):
            if turn is not None:
                messages.append(_user(turn.question))
                text = self._render(messages, answer_next=True)
                messages.append(_message("assistant", turn.answer))
            start, text = len(text), self._render(messages)
            spans.append((start, len(text)))
        if not text.endswith(self.tokenizer.eos_token):
            # LLaVA-1.5's template leaves a blank behind the answer, for the next turn.
            text = text.rstrip() + self.tokenizer.eos_token
            spans[-1] = (spans[-1][0], len(text))
        ids, offsets = self._ids(text)
        first = len(prompt_ids)
        if not np.array_equal(ids[:first], prompt_ids):
            raise DataError(
                source,
                record.key,
                "the chat template renders the prompt differently once it is answered",
                "use a template whose answered conversation begins with its generation prompt",
            )
        if (ids[first:] == self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)).any():
            raise DataError(
                source,
                record.key,
                f"there is an {IMAGE_TOKEN} placeholder in an answer or in a further turn",
                f"take {IMAGE_TOKEN} out of it: the image belongs to the first question",
            )
        scored = np.zeros(len(ids), bool)
        for start, end in spans:
            scored |= (offsets[:, 0] >= start) & (offsets[:, 0] < end)
        return ids[first:], scored[first:]

    def _render(self, messages: Sequence[dict[str, Any]], answer_next: bool = False) -> str:
        return self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=answer_next
        )

    def _ids(self, text: str) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, "t 2"]]:
        # As the processors of transformers do: a template that does not begin with the first token leaves it
        # to the tokenizer.
        first = self.tokenizer.bos_token
        begun = first is not None and text.startswith(first)
        encoded = self.tokenizer(text, add_special_tokens=not begun, return_offsets_mapping=True)
        return np.array(encoded["input_ids"], np.int32), np.array(encoded["offset_mapping"]).reshape(-1, 2)


def _changed(responses: Sequence[Int[np.ndarray, " t"]]) -> tuple[Bool[np.ndarray, " t"], ...]:
    first, second, *others = responses
    unmarked = (np.zeros(len(ids), bool) for ids in others)
    return (*changed_tokens(first.tolist(), second.tolist()), *unmarked)


def _user(question: str, image: bool = False) -> dict[str, Any]:
    return _message("user", question, [{"type": "image"}] if image else [])


def _message(role: str, text: str, images: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    return {"role": role, "content": [*images, {"type": "text", "text": text}]}
