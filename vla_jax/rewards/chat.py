"""Chat completions as OpenAI's interface words them: what is asked, and what of a reply is read.

vLLM, SGLang, llama.cpp, Ollama and most vendors speak the same.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vla_jax.rewards.annotating import TEMPLATE, prompt
from vla_jax.rewards.judging import Shown
from vla_jax.rewards.reading import Reading, read


@dataclass(frozen=True)
class ChatModel:
    """Whom to ask, and how.

    Attributes:
      model: the server's name of it.
      max_new_tokens: where a reply is cut.
      temperature: of its sampling; below 0 the server's own is left.
      length_field: what the server calls `max_new_tokens`: max_tokens, or max_completion_tokens.
    """

    model: str
    max_new_tokens: int = 256
    temperature: float = 0.0
    length_field: str = "max_tokens"

    @property
    def identity(self) -> Mapping[str, Any]:
        """What a reply depends on, besides the comparison."""
        return {
            "model": self.model,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "prompt": TEMPLATE,
        }

    def body(self, asked: Shown) -> dict[str, Any]:
        """The request; the image goes along as PNG in a data URL."""
        content = [
            {"type": "image_url", "image_url": {"url": _data_url(asked)}},
            {"type": "text", "text": prompt(asked)},
        ]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            self.length_field: self.max_new_tokens,
        }
        return body if self.temperature < 0 else body | {"temperature": self.temperature}


def reading_of(completion: Any) -> Reading:
    """What a completion says.

    Args:
      completion: the body of the server's reply, parsed.

    Raises:
      ValueError: where it is no completion; says what is missing.
    """
    try:
        message = completion["choices"][0]["message"]
        words = message["content"]
    except (KeyError, IndexError, TypeError):
        error = completion.get("error") if isinstance(completion, Mapping) else None
        raise ValueError(f"the server says {error}" if error else "no choices[0].message.content") from None
    refusal = message.get("refusal")
    if words is None and isinstance(refusal, str):
        return Reading(None, refusal, "the judge refused to answer", _tokens(completion))
    if isinstance(words, list):  # as it may stand in a request, in parts
        words = "".join(str(part["text"]) for part in words if isinstance(part, dict) and "text" in part)
    if words is not None and not isinstance(words, str):
        raise ValueError(f"message.content is {type(words).__name__}, not text")
    return read(words or "")._replace(tokens=_tokens(completion))


def _tokens(completion: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens in and out, as billed; 0 where the server does not count."""
    usage = completion.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def _count(value: Any) -> int:
    """A count as JSON may have it, 0 for what is none."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else 0


def _data_url(asked: Shown) -> str:
    with io.BytesIO() as file:
        Image.fromarray(asked.image).save(file, "png")
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
