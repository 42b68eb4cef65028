"""The words that name objects, and which tokens of a response they are.

A set grows from names: their singulars and plurals (inflect) and their WordNet synonyms. What is shipped
are the labels of COCO and of LVIS, which are Detic's; see `entity_lists/README.txt`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import inflect

from vla_jax.data.vocabulary import Vocabulary

SYNONYMS = ("none", "nouns", "all")
_REMARK = re.compile(r"\(.*?\)")


class EntityTokens(NamedTuple):
    """A word of a response that names an object.

    Attributes:
      word: as the response has it.
      first, last: the tokens that hold its first and its last letter.
    """

    word: str
    first: int
    last: int


@dataclass(frozen=True)
class Entities:
    """A set of words that name objects.

    Attributes:
      names: the names it grew from.
      words: every singular of the set; plurals are matched with them.
    """

    names: tuple[str, ...]
    words: Vocabulary

    @classmethod
    def from_names(cls, names: Iterable[str], synonyms: Iterable[str] = ()) -> "Entities":
        """A set of names, of the singulars of those that are plurals, and of their synonyms.

        Args:
          names: as people or label files write them: "stop_sign" is two words, "bat_(animal)" one.
          synonyms: lines `name, synonym, synonym` of some of the names; others are not looked at.

        Raises:
          ValueError: where there are no names.
        """
        plain = tuple(dict.fromkeys(plain_name(name) for name in names))
        engine = inflect.engine()
        singulars = [singular for name in plain if (singular := engine.singular_noun(name))]
        known = set(plain)
        rows = ([entry.strip() for entry in line.split(",")] for line in synonyms)
        further = [word for name, *row in rows if name in known for word in row]
        return cls(plain, Vocabulary.from_names(dict.fromkeys([*plain, *singulars, *further])))

    @classmethod
    def shipped(cls, synonyms: str = "nouns") -> "Entities":
        """The labels of COCO and LVIS, with their WordNet synonyms.

        Args:
          synonyms: "none", "nouns", or "all": of verbs and adjectives spelt alike too, as the paper took them
            ("lead" for a chair, "cork" for a bob).

        Raises:
          ValueError: where there is no such choice.
        """
        if synonyms not in SYNONYMS:
            raise ValueError(f"entities: synonyms={synonyms!r} is not one of {', '.join(SYNONYMS)}")
        files = ("wordnet_nouns", "wordnet_others")[: SYNONYMS.index(synonyms)]
        lines = [line for file in files for line in _shipped(file)]
        return cls.from_names([*Vocabulary.coco().names, *_shipped("lvis")], lines)

    @classmethod
    def read(cls, path: Path) -> "Entities":
        """A set from a file of lines `name, synonym, synonym`; blank lines and those with # are skipped.

        Raises:
          OSError: where it cannot be read.
          ValueError: where it holds no name.
        """
        lines = _entries(path.read_text(encoding="utf-8"))
        return cls.from_names([line.partition(",")[0] for line in lines], lines)

    @cached_property
    def spellings(self) -> frozenset[str]:
        """All words of the set, each with its plural: what the paper counts."""
        engine = inflect.engine()
        return frozenset(form for word in self.words.names for form in (word, engine.plural_noun(word)))

    def tokens(self, tokenizer: Any, ids: Sequence[int]) -> list[EntityTokens]:
        """The words of a response that name objects, in reading order; the longest name wins.

        Args:
          tokenizer: of the response.
          ids: its tokens, without padding.
        """
        ends = token_ends(tokenizer, ids)
        text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        found = []
        for mention in self.words.mentions(text):
            first = next(k for k, end in enumerate(ends) if end > mention.start)
            last = next(k for k, end in enumerate(ends) if end >= mention.end)
            found.append(EntityTokens(text[mention.start : mention.end], first, last))
        return found


def plain_name(name: str) -> str:
    """A label as one would say it: in lower case, underscores as blanks, without its remark in brackets."""
    return " ".join(_REMARK.sub("", name).replace("_", " ").lower().split())


def token_ends(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """How many characters of the decoded text each token and those before it give.

    The first bytes of a character are decoded as a sign each, which are more than the character that they
    become; none of them gives more than what comes after it.
    """
    lengths = [
        len(tokenizer.decode(ids[: k + 1], skip_special_tokens=True, clean_up_tokenization_spaces=False))
        for k in range(len(ids))
    ]
    return list(accumulate(reversed(lengths), min))[::-1]


def _shipped(name: str) -> list[str]:
    file = resources.files(f"{__package__}.entity_lists").joinpath(f"{name}.txt")
    return _entries(file.read_text(encoding="utf-8"))


def _entries(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
