"""Captions: what they mention, how they are drawn, how they are worded, and how they are read back."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from vla_jax.data.world.categories import CATEGORIES, CATEGORY, COLOURS, SIZE_ADJECTIVES
from vla_jax.data.world.config import WorldConfig
from vla_jax.data.world.draws import between, chance, pick, sample, shuffled
from vla_jax.data.world.scenes import Scene

CAPTION_QUESTIONS = (
    "What is in the picture?",
    "Describe the picture.",
    "What do you see?",
    "Which objects are shown here?",
)
# How a caption begins, before one object and before several.
OPENINGS = (("There is", "There are"), ("The picture shows",) * 2, ("I can see",) * 2)
_FURTHER_OPENING = ("There is also", "There are also")
COUNT_WORDS = {1: "one", 2: "two"}

# The kinds of adjectives, each a field of `Mention`, in the order English puts them.
Adjective = Literal["size", "colour"]
ADJECTIVES: tuple[Adjective, ...] = get_args(Adjective)

_CATEGORY_OF_WORD = {word: c.name for c in CATEGORIES for word in (c.name, c.plural)}


@dataclass(frozen=True)
class Mention:
    """One category as a caption mentions it: "a large red cup", "two apples".

    Attributes:
      name: the category.
      count: how many instances.
      colour: the colour named, or None.
      size: the size named ("small" or "large"), or None.
    """

    name: str
    count: int = 1
    colour: str | None = None
    size: str | None = None

    def stating(self, adjective: Adjective, word: str | None) -> "Mention":
        """The mention with `word` as its adjective of that kind; None takes the adjective away."""
        return replace(self, size=word) if adjective == "size" else replace(self, colour=word)

    def __str__(self) -> str:
        noun = CATEGORY[self.name].name if self.count == 1 else CATEGORY[self.name].plural
        words = [word for word in (self.size, self.colour, noun) if word]
        return " ".join([article(words[0]) if self.count == 1 else COUNT_WORDS[self.count], *words])


@dataclass(frozen=True)
class Caption:
    """A caption as its mentions, sentence by sentence; `str` words it.

    Attributes:
      opening: how it begins, one of `OPENINGS`.
      sentences: the mentions of each sentence, at least one.
    """

    opening: tuple[str, str]
    sentences: tuple[tuple[Mention, ...], ...]

    @property
    def mentions(self) -> tuple[Mention, ...]:
        """The mentions of all sentences, in order."""
        return tuple(mention for sentence in self.sentences for mention in sentence)

    def replaced(self, old: Mention, *new: Mention) -> "Caption":
        """The caption with one mention replaced by others (or by none) in its place."""
        sentences = tuple(
            tuple(m for mention in sentence for m in (new if mention == old else (mention,)))
            for sentence in self.sentences
        )
        return replace(self, sentences=sentences)

    def __str__(self) -> str:
        openings = (self.opening, *(_FURTHER_OPENING for _ in self.sentences[1:]))
        return " ".join(
            f"{opening[sentence[0].count > 1]} {listed([str(mention) for mention in sentence])}."
            for opening, sentence in zip(openings, self.sentences, strict=True)
        )


def article(word: str) -> str:
    """The indefinite article before a word of the world; none of them has a silent h or a "yoo"."""
    return "an" if word[0] in "aeiou" else "a"


def listed(items: Sequence[str]) -> str:
    """Items as a list in prose: "a", "a and b", "a, b and c"."""
    return " and ".join([*([", ".join(items[:-1])] if items[1:] else []), items[-1]])


def true_mentions(rng: np.random.Generator, config: WorldConfig, scene: Scene) -> list[Mention]:
    """One truthful mention for each category of the scene, with adjectives at random."""
    mentions = []
    for full in full_mentions(scene):
        colour = full.colour if chance(rng, config.colour_words) else None
        size = full.size if chance(rng, config.size_words) else None
        mentions.append(replace(full, colour=colour, size=size))
    return mentions


def full_mentions(scene: Scene) -> list[Mention]:
    """One mention for each category of the scene, with every adjective that holds."""
    mentions = []
    for name in scene.names:
        first, *others = scene.instances(name)
        size = first.size if first.size in SIZE_ADJECTIVES else None
        mentions.append(Mention(name, 1 + len(others), first.colour, size))
    return mentions


def imagined_mentions(rng: np.random.Generator, config: WorldConfig, scene: Scene) -> list[Mention]:
    """Absent partners of anchors that the biased annotator sees, each with probability `prior_mentions`."""
    mentions = []
    for partner in scene.absent_partners:
        if chance(rng, config.prior_mentions):
            colour = pick(rng, tuple(COLOURS)) if chance(rng, config.colour_words) else None
            mentions.append(Mention(partner, colour=colour))
    return mentions


def draw_caption(rng: np.random.Generator, config: WorldConfig, mentions: Sequence[Mention]) -> Caption:
    """The mentions in random order, over a random number of sentences."""
    ordered = shuffled(rng, mentions)
    count = between(rng, 1, min(config.max_sentences, len(ordered)))
    cuts = [0, *sorted(sample(rng, range(1, len(ordered)), count - 1)), len(ordered)]
    sentences = tuple(tuple(ordered[a:b]) for a, b in zip(cuts, cuts[1:], strict=False))
    return Caption(pick(rng, OPENINGS), sentences)


def mentioned_categories(text: str) -> tuple[str, ...]:
    """Names of the categories a text mentions, in order, each once; singular and plural count alike."""
    words = re.findall("[a-z]+", text.lower())
    return tuple(dict.fromkeys(_CATEGORY_OF_WORD[word] for word in words if word in _CATEGORY_OF_WORD))


def every_caption_word() -> Iterable[str]:
    """Captions that between them hold every word a caption can."""
    for category in CATEGORIES:
        for colour in COLOURS:
            yield str(Caption(OPENINGS[0], ((Mention(category.name, 1, colour),),)))
    for category in CATEGORIES:
        for opening in OPENINGS:
            mentions = Mention(category.name, 2, None, "small"), Mention(category.name, 1, None, "large")
            yield str(Caption(opening, (mentions, mentions[:1], mentions[1:])))
