"""Object names and where a text mentions them: the half of CHAIR that reads.

The other half, counting, is `evaluation/chair.py`. The report marks hallucinated words with the same
`Vocabulary.mentions`, so that what it shows in red is exactly what was counted.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import NamedTuple

import inflect

# Hyphenated words stay whole, as CHAIR's tokeniser leaves them; "man's" is read as "man".
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_BLANK = re.compile(r"\s+")

# CHAIR's compounds. A young or a grown animal is that animal and no person ("baby", "adult") ...
_ANIMALS = "bird cat dog horse sheep cow elephant bear zebra giraffe animal cub".split()
_VEHICLES = ("jet", "train")
_HEADS = {
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in _ANIMALS},
    **{f"passenger {vehicle}": vehicle for vehicle in _VEHICLES},
    "bow tie": "tie",
    "toilet seat": "toilet",
}
# ... and these hide a name that is not meant, whether or not they are names themselves.
_OPAQUE = ("home plate", "train track", "hot dog", "teddy bear")


class Mention(NamedTuple):
    """One object named in a text: its canonical `name`, and the characters `text[start:end]` that name it."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Vocabulary:
    """Canonical object names with their synonyms.

    Attributes:
      names: the canonical names, in the order given.
      name_of: every singular spelling, synonym or canonical -> its canonical name.
    """

    names: tuple[str, ...]
    name_of: Mapping[str, str]

    @classmethod
    def from_names(cls, names: Iterable[str]) -> "Vocabulary":
        """A vocabulary without synonyms; `names` are singular ("dining table")."""
        return cls.from_synonym_lines(names)

    @classmethod
    def from_synonym_lines(cls, lines: Iterable[str]) -> "Vocabulary":
        """Reads the format of CHAIR's `synonyms.txt`: `canonical, synonym, synonym` on each line.

        Blank lines, and lines that begin with `#`, are skipped.

        Raises:
          ValueError: a spelling stands for two objects, a name has no letter, or there is no name at all.
        """
        names: list[str] = []
        name_of: dict[str, str] = {}
        for line in lines:
            if line.lstrip().startswith("#") or not line.strip():
                continue
            spellings = [_normal(entry) for entry in line.split(",") if entry.strip()]
            if not spellings or "" in spellings:
                raise ValueError(f"vocabulary: {line!r} holds a name without a letter; correct the line")
            canonical = spellings[0]
            if canonical not in names:
                names.append(canonical)
            for spelling in spellings:
                if name_of.setdefault(spelling, canonical) != canonical:
                    raise ValueError(
                        f"vocabulary: {spelling!r} stands for {name_of[spelling]!r} and for {canonical!r}; "
                        "keep it in one of the two"
                    )
        if not names:
            raise ValueError("vocabulary: no names; give one object a line, `canonical, synonym, synonym`")
        return cls(tuple(names), name_of)

    @classmethod
    def coco(cls, also: Iterable[str] = ()) -> "Vocabulary":
        """The 80 COCO categories with everyday synonyms of our own (`coco_names.txt`).

        Args:
          also: further names; those that COCO knows already add nothing.

        Figures to be compared with published ones need CHAIR's own `synonyms.txt`, by `from_synonym_lines`.
        """
        text = resources.files(__package__).joinpath("coco_names.txt").read_text(encoding="utf-8")
        coco = cls.from_synonym_lines(text.splitlines())
        known = {_normal(name) for name in coco.name_of}
        new = sorted({name for name in also if _normal(name) not in known})
        return cls.from_synonym_lines([*text.splitlines(), *new]) if new else coco

    def canonical(self, name: str) -> str:
        """The canonical name of a canonical name or synonym.

        Raises:
          ValueError: `name` is not in the vocabulary.
        """
        try:
            return self.name_of[_normal(name)]
        except KeyError:
            raise ValueError(
                f"{name!r} is not among the {len(self.names)} objects of the vocabulary "
                f"({', '.join(self.names[:5])} ...); add it there, or leave it out of the true objects"
            ) from None

    def mentions(self, text: str) -> tuple[Mention, ...]:
        """Every object named in `text`, in reading order, repeats included.

        Follows CHAIR (Rohrbach et al., 2018, and its published scorer): whole words, plural or
        singular, any case; the longest name wins ("dining table" is one mention); a "baby elephant" is an
        elephant and no person; a "seat" in a text that names a toilet is not a chair. One departure: the
        published scorer's singulariser makes "bu" of "bus" and so overlooks it, and ours does not.
        """
        spans = self._spans(text)
        beside_toilet = any(spelling == "toilet" for spelling, _, _ in spans)
        return tuple(
            Mention(self.name_of[spelling], start, end)
            for spelling, start, end in spans
            if spelling in self.name_of and not (beside_toilet and spelling == "seat")
        )

    def _spans(self, text: str) -> list[tuple[str, int, int]]:
        """(singular spelling, start, end) of the known names and compounds in `text`, longest match first."""
        words = [(match.group().lower(), match.start(), match.end()) for match in _WORD.finditer(text)]
        spans, first = [], 0
        while first < len(words):
            for last in range(min(first + self._longest, len(words)) - 1, first - 1, -1):
                run = words[first : last + 1]
                spelling = self._spelling_of.get(tuple(word for word, _, _ in run))
                # Words of one name stand with nothing but blanks between them: "fire, hydrant" is two things.
                gaps = ((left[2], right[1]) for left, right in itertools.pairwise(run))
                if spelling and all(_BLANK.fullmatch(text, *gap) for gap in gaps):
                    spans.append((spelling, run[0][1], run[-1][2]))
                    first = last
                    break
            first += 1
        return spans

    @cached_property
    def _spelling_of(self) -> Mapping[tuple[str, ...], str]:
        """Words as they occur, singular or plural -> singular spelling.

        Plurals are made from the names, once. Making the text's words singular instead would be slower and
        lose some: `inflect` makes "bu" of "bus" and "tenni" of "tennis".
        """
        spellings = _HEADS | {phrase: phrase for phrase in (*_OPAQUE, *self.name_of)}
        forms = {_words(phrase): spelling for phrase, spelling in spellings.items()}
        engine = inflect.engine()
        for phrase, spelling in spellings.items():
            *before, noun = _words(phrase)
            # The plain "s" beside inflect's plural admits what people also write: persons, buffalos.
            for plural in (engine.plural_noun(noun), f"{noun}s"):
                forms.setdefault((*before, plural), spelling)
        return forms

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._spelling_of))


def _normal(name: str) -> str:
    return " ".join(_words(name.lower()))


def _words(phrase: str) -> tuple[str, ...]:
    return tuple(match.group() for match in _WORD.finditer(phrase))
