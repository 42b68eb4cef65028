"""Synonyms from WordNet's own database files (Miller 1995), which Debian's `wordnet-base` carries too.

Nothing needs it to train: what it says of the shipped names is kept in `entity_lists/`. With it a user
expands other names.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
# A sense that WordNet itself marks as one of these names nobody and nothing.
_OFFENSIVE = {"ethnic_slur", "disparagement", "obscenity", "dirty_word"}


class _Sense(NamedTuple):
    lemmas: tuple[str, ...]
    usages: tuple[tuple[str, int], ...]  # (part of speech, offset) of the usage domains it belongs to


@dataclass(frozen=True)
class WordNet:
    """A folder with `index.noun`, `data.noun` and the like.

    Attributes:
      folder: where they are.
    """

    folder: Path

    def synonyms(self, word: str, part_of_speech: str) -> tuple[str, ...]:
        """The other words of all senses of a word, in WordNet's order, most used sense first.

        Senses whose usage is marked as offensive are left out.

        Args:
          word: in its base form; of several words, with blanks between them.
          part_of_speech: one of `PARTS_OF_SPEECH`.

        Raises:
          OSError: where the folder has no such files.
        """
        lemma = word.lower().replace(" ", "_")
        found: list[str] = []
        for offset in self._index[part_of_speech].get(lemma, ()):
            sense = self._sense(part_of_speech, offset)
            usages = {name for place in sense.usages for name in self._sense(*place).lemmas}
            if not usages & _OFFENSIVE:
                found += [other.replace("_", " ") for other in sense.lemmas if other.lower() != lemma]
        return tuple(dict.fromkeys(found))

    @cached_property
    def _index(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Part of speech -> lemma -> offsets of its senses."""
        index: dict[str, dict[str, tuple[int, ...]]] = {}
        for part in PARTS_OF_SPEECH:
            lines = (self.folder / f"index.{part}").read_text(encoding="ascii").splitlines()
            rows = (line.split() for line in lines if not line.startswith(" "))
            index[part] = {row[0]: tuple(map(int, row[len(row) - int(row[2]) :])) for row in rows}
        return index

    @cached_property
    def _data(self) -> dict[str, bytes]:
        return {part: (self.folder / f"data.{part}").read_bytes() for part in PARTS_OF_SPEECH}

    def _sense(self, part_of_speech: str, offset: int) -> _Sense:
        """Reads `offset lexicographer type count (word id)* count (pointer offset type places)* ...`."""
        data = self._data[part_of_speech]
        fields = data[offset : data.index(b"\n", offset)].decode("ascii").split()
        words = int(fields[3], 16)
        lemmas = tuple(word.partition("(")[0] for word in fields[4 : 4 + 2 * words : 2])
        pointers = fields[5 + 2 * words : 5 + 2 * words + 4 * int(fields[4 + 2 * words])]
        letters = dict(n="noun", v="verb", a="adj", s="adj", r="adv")
        usages = (
            (letters[pointers[i + 2]], int(pointers[i + 1]))
            for i in range(0, len(pointers), 4)
            if pointers[i] == ";u"
        )
        return _Sense(lemmas, tuple(usages))
