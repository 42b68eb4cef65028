"""Records as the model's own chat template writes them, in ids.

Prompt and answer are rendered together and tokenised in one go, so that they are the whole render, token for
token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from vla_jax.data.schema import DataError, Record
from vla_jax.data.tokenizer import IMAGE_TOKEN


class Asked(NamedTuple):
    """A rendered prompt.

    Attributes:
      messages: what it was rendered from.
      text: the render, up to where the answer begins.
      ids: of the text, one a placeholder.
    """

    messages: Sequence[dict[str, Any]]
    text: str
    ids: Int[np.ndarray, " s"]


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a tokenizer.

    Attributes:
      tokenizer: a transformers fast tokenizer with a chat template that writes `<image>` for an image.
    """

    tokenizer: Any

    def asked(self, messages: Sequence[dict[str, Any]]) -> Asked:
        """These messages, ready for an answer."""
        text = self._render(messages, answer_next=True)
        return Asked(messages, text, self._ids(text))

    def prompt(self, record: Record, source: str) -> Asked:
        """A record's messages before the answer.

        Raises:
          DataError: where the template leaves the system message out.
        """
        asked = self.asked(_prompt(record))
        if record.system and record.system.strip() not in asked.text:
            raise DataError(
                source,
                record.key,
                "the model's chat template leaves the system message out",
                "remove the message, or give the tokenizer a template that writes it",
            )
        return asked

    def response(
        self, asked: Asked, answer: str, record: Record, further_turns: bool, source: str
    ) -> tuple[Int[np.ndarray, " t"], Bool[np.ndarray, " t"]]:
        """Ids of what follows the prompt, end of sequence included, and which of them the loss counts.

        Args:
          asked: the record's prompt.
          answer: the answer.
          record: gives its further turns.
          further_turns: whether they are appended.
          source: what an error calls the data.

        Raises:
          DataError: where the template renders the prompt differently once it is answered, or an answer holds
            an image placeholder.
        """
        messages, text = [*asked.messages, _message("assistant", answer)], asked.text
        spans = []
        for turn in (None, *(record.further_turns if further_turns else ())):
            if turn is not None:
                messages.append(user_message(turn.question))
                text = self._render(messages, answer_next=True)
                messages.append(_message("assistant", turn.answer))
            start, text = len(text), self._render(messages)
            # Templates leave a blank behind the answer; it belongs to the next turn's first token.
            spans.append((start, len(text.rstrip())))
        text = self._ended(text.rstrip())
        spans[-1] = (spans[-1][0], len(text))
        ids = self._ids(text)
        first = len(asked.ids)
        if not np.array_equal(ids[:first], asked.ids):
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
                f"take {IMAGE_TOKEN} out of it: images belong to the first question",
            )
        if len(spans) == 1:
            return ids[first:], np.ones(len(ids) - first, bool)
        scored, begins = np.zeros(len(ids), bool), self._begins(text)
        for start, end in spans:
            scored |= (begins >= start) & (begins < end)
        return ids[first:], scored[first:]

    def _ended(self, text: str) -> str:
        """A conversation that ends with the end of sequence, whatever its template writes there."""
        end = self.tokenizer.eos_token
        # As it stands in the templates that were published with LLaVA-1.6-Mistral first.
        text = text.removesuffix("<\\s>")
        return text if text.endswith(end) else text + end

    def _render(self, messages: Sequence[dict[str, Any]], answer_next: bool = False) -> str:
        return self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=answer_next
        )

    def _ids(self, text: str) -> Int[np.ndarray, " t"]:
        return np.array(self._tokenised(text)["input_ids"], np.int32)

    def _begins(self, text: str) -> Int[np.ndarray, " t"]:
        """Where in the text each of its tokens begins."""
        offsets = self._tokenised(text, return_offsets_mapping=True)["offset_mapping"]
        return np.array([start for start, _ in offsets])

    def _tokenised(self, text: str, **options: bool) -> Mapping[str, Any]:
        # As the processors of transformers do: a template that does not begin with the first token leaves it
        # to the tokenizer.
        first = self.tokenizer.bos_token
        begun = first is not None and text.startswith(first)
        return self.tokenizer(text, add_special_tokens=not begun, **options)


def _prompt(record: Record) -> list[dict[str, Any]]:
    """The messages before the answer, with the images at the user's first words."""
    messages = [_message("system", record.system)] if record.system else []
    asked = [turn.question for turn in record.history] + [record.question]
    for place, question in enumerate(asked):
        messages.append(user_message(question, images=0 if place else len(record.images)))
        if place < len(record.history):
            messages.append(_message("assistant", record.history[place].answer))
    return messages


def user_message(question: str, images: int = 0) -> dict[str, Any]:
    """A question with so many images in front of it."""
    return _message("user", question, [{"type": "image"}] * images)


def _message(role: str, text: str, images: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    return {"role": role, "content": [*images, {"type": "text", "text": text}]}
