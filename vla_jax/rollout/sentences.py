"""Sentences of a response, in its tokens: where they end, which tokens end one, and Yes for No."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

# A full stop or its like, with what closes behind it, before a blank or the end.
_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)")
_MARKS = set(".!?\"'”’)]")
_ANSWER = re.compile(r"\s*(Yes|yes|No|no)\b")
_OTHER = {"Yes": "No", "No": "Yes", "yes": "no", "no": "yes"}


class Exchanged(NamedTuple):
    """A sentence with its Yes and No exchanged.

    Attributes:
      tokens: its ids.
      answered: how many of them, from its beginning, hold the answer.
    """

    tokens: tuple[int, ...]
    answered: int


def split(tokens: Sequence[int], tokenizer: Any) -> list[tuple[int, int]]:
    """(start, end) of every sentence of a response, in tokens; together they are all of it.

    A sentence ends with a full stop, an exclamation or a question mark before a blank or the end, not with
    the number of a list's item. Where such a mark lies within a token, two sentences are one. What stands
    between two sentences belongs to the second.

    Args:
      tokens: ids of the response, no special ones among them.
      tokenizer: of transformers.
    """
    ends = _ends(tokenizer.decode(tokens))
    spans, start = [], 0
    for index, token in enumerate(tokens):
        if not set(tokenizer.decode([token])) & _MARKS:
            continue
        if len(tokenizer.decode(tokens[: index + 1]).rstrip()) in ends:
            spans.append((start, index + 1))
            start = index + 1
    if start == len(tokens):
        return spans
    if spans and not tokenizer.decode(tokens[start:]).strip():
        return [*spans[:-1], (spans[-1][0], len(tokens))]
    return [*spans, (start, len(tokens))]


def _ends(text: str) -> set[int]:
    """Where sentences end, in characters."""
    ends, start = set(), 0
    for match in _END.finditer(text):
        if not text[start : match.start()].rpartition("\n")[2].strip().isdigit():
            ends.add(match.end())
            start = match.end()
    return ends


def end_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Ids of the tokens with which a sentence ends, as `split` has it; special tokens are none."""
    special = set(tokenizer.all_special_ids)
    pieces = ((index, tokenizer.decode([index])) for index in range(len(tokenizer)) if index not in special)
    return tuple(index for index, piece in pieces if piece.strip() and len(piece.rstrip()) in _ends(piece))


def exchanged(tokens: Sequence[int], tokenizer: Any) -> Exchanged | None:
    """A sentence that begins with Yes or No, answered the other way; None where it does not.

    The alignment study's expression also takes the beginning of "Nobody" for an answer; ours asks for the
    whole word.

    Args:
      tokens: ids of the sentence.
      tokenizer: a fast one of transformers.
    """
    match = _ANSWER.match(tokenizer.decode(tokens))
    if match is None:
        return None
    word = match[1]
    pieces = tokenizer.convert_ids_to_tokens(list(tokens))
    end = next(end for end in range(1, len(pieces) + 1) if word in "".join(pieces[:end]))
    start = max(start for start in range(end) if word in "".join(pieces[start:end]))
    # In the vocabulary's own letters, so that what marks a blank before the word stays as it is.
    answered = "".join(pieces[start:end]).replace(word, _OTHER[word], 1)
    other = [token.id for token in tokenizer.backend_tokenizer.model.tokenize(answered)]
    return Exchanged((*tokens[:start], *other, *tokens[end:]), start + len(other))
