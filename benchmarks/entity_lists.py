"""Makes the synonym lists of `vla_jax/rewards/entity_lists/` anew, and counts what the set holds.

    python -m benchmarks.entity_lists --wordnet=/usr/share/wordnet [--to=vla_jax/rewards/entity_lists]

The folder is WordNet 3.0's (Debian: `apt-get install wordnet-base`). Without it, only counts.
"""

from pathlib import Path

from absl import app, flags

from vla_jax.rewards.entities import SYNONYMS, Entities
from vla_jax.rewards.wordnet import PARTS_OF_SPEECH, WordNet

_HEADER = "# Synonyms of COCO's and LVIS's labels in WordNet 3.0 ({what}). See README.txt for its licence."
_FILES = {"wordnet_nouns": ("noun",), "wordnet_others": PARTS_OF_SPEECH[1:]}


def lines(wordnet: WordNet, names: tuple[str, ...], parts: tuple[str, ...]) -> list[str]:
    """`name, synonym, synonym` of every name that has any; no synonym with a comma is known to WordNet."""
    found = []
    for name in names:
        words = dict.fromkeys(word for part in parts for word in wordnet.synonyms(name, part))
        if words:
            found.append(", ".join([name, *words]))
    return found


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    if folder := _WORDNET.value:
        names = Entities.shipped("none").names
        for file, parts in _FILES.items():
            header = _HEADER.format(what=", ".join(f"{part}s" for part in parts))
            content = [header, *lines(WordNet(Path(folder)), names, parts)]
            (Path(_TO.value) / f"{file}.txt").write_text("\n".join(content) + "\n", encoding="utf-8")
    for synonyms in SYNONYMS:
        entities = Entities.shipped(synonyms)
        print(f"synonyms={synonyms}: {len(entities.names):,} names -> {len(entities.spellings):,} words")
    print("the paper: 1,204 names -> 5,678 words")


if __name__ == "__main__":
    _WORDNET = flags.DEFINE_string("wordnet", "", "WordNet's database files.")
    _TO = flags.DEFINE_string("to", "vla_jax/rewards/entity_lists", "Where the lists lie.")
    app.run(main)
