"""Preference pairs: a true caption and one that gives in to the language prior, of exactly equal length.

Both captions have the same number of words, sentences and punctuation marks, and the same order: no model can
tell them apart by their length, or win by being brief. Some records ask instead whether one object is there;
then both answers are one word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vla_jax.data.world.categories import CATEGORY
from vla_jax.data.world.config import WorldConfig
from vla_jax.data.world.draws import chance, pick, shuffled
from vla_jax.data.world.questions import existence_question, yes_or_no
from vla_jax.data.world.scenes import Scene, biased_scene
from vla_jax.data.world.text import (
    ADJECTIVES,
    OPENINGS,
    Adjective,
    Caption,
    Mention,
    draw_caption,
    full_mentions,
    true_mentions,
)

# "There is also a cup." -> "There is also a cup and a bottle.": no comma more, and three words.
_ADDED_WORDS = 3


@dataclass(frozen=True)
class Preference:
    """A scene with an absent partner, and two captions of it.

    Attributes:
      scene: what is there.
      chosen: true, and mentions every category present.
      rejected: mentions `hallucinated` as well or instead.
      hallucinated: the one category mentioned that is absent, partner of an anchor.
      asked: the category that the record asks for instead of a caption, if any: the hallucinated one or one
        that is there, equally often.
    """

    scene: Scene
    chosen: Caption
    rejected: Caption
    hallucinated: str
    asked: str | None = None

    @property
    def question(self) -> str | None:
        """The question after `asked`."""
        return existence_question(self.asked) if self.asked else None

    @property
    def texts(self) -> tuple[str, str]:
        """What is chosen and what is rejected, in words."""
        if self.asked is None:
            return str(self.chosen), str(self.rejected)
        there = self.asked in self.scene.names
        return yes_or_no(there), yes_or_no(not there)


def draw_preference(rng: np.random.Generator, config: WorldConfig) -> Preference:
    """A pair whose hallucination replaces a true object (with probability `swap_fraction`) or joins them.

    Scenes are drawn until one lacks an anchor's partner and, where words must make room, has adjectives to
    spare. At `cooccurrence` 1 none ever would.
    """
    swap = chance(rng, config.swap_fraction)
    while True:
        scene = biased_scene(rng, config)
        if scene.absent_partners and (swap or len(_stated(full_mentions(scene))) >= _ADDED_WORDS):
            captions = (_swapped if swap else _extended)(rng, config, scene)
            return _asking(rng, captions) if chance(rng, config.preference_questions) else captions


def _swapped(rng: np.random.Generator, config: WorldConfig, scene: Scene) -> Preference:
    """The absent partner takes a true object's place and adjectives, but not its anchor's."""
    chosen = draw_caption(rng, config, true_mentions(rng, config, scene))
    partner = pick(rng, scene.absent_partners)
    anchor = CATEGORY[partner].partner
    victim = pick(rng, [mention for mention in chosen.mentions if mention.name != anchor])
    return Preference(scene, chosen, chosen.replaced(victim, replace(victim, name=partner)), partner)


def _extended(rng: np.random.Generator, config: WorldConfig, scene: Scene) -> Preference:
    """The absent partner joins a sentence of one mention, in place of three adjectives elsewhere."""
    mentions = shuffled(rng, true_mentions(rng, config, scene))
    full = {mention.name: mention for mention in full_mentions(scene)}
    while len(_stated(mentions)) < _ADDED_WORDS:
        mentions = _with_one_more(rng, mentions, full)
    alone, *others = mentions
    sentences = shuffled(rng, [(alone,), tuple(others)])
    chosen = Caption(pick(rng, OPENINGS), tuple(sentences))

    rejected = chosen
    for _ in range(_ADDED_WORDS):
        mention, adjective = pick(rng, _stated(rejected.mentions))
        rejected = rejected.replaced(mention, mention.stating(adjective, None))
    partner = pick(rng, scene.absent_partners)
    (lone,) = (mention for mention in rejected.mentions if mention.name == alone.name)
    return Preference(
        scene, chosen, rejected.replaced(lone, *shuffled(rng, [lone, Mention(partner)])), partner
    )


def _asking(rng: np.random.Generator, captions: Preference) -> Preference:
    name = captions.hallucinated if chance(rng, 0.5) else pick(rng, captions.scene.names)
    return replace(captions, asked=name)


def _with_one_more(
    rng: np.random.Generator, mentions: Sequence[Mention], full: Mapping[str, Mention]
) -> list[Mention]:
    """The mentions with one adjective more, taken from the `full` mention of the same category."""
    stated = _stated(mentions)
    unstated = [
        (mention, adjective)
        for mention in mentions
        for _, adjective in _stated([full[mention.name]])
        if (mention, adjective) not in stated
    ]
    changed, adjective = pick(rng, unstated)
    fuller = changed.stating(adjective, getattr(full[changed.name], adjective))
    return [fuller if mention == changed else mention for mention in mentions]


def _stated(mentions: Sequence[Mention]) -> list[tuple[Mention, Adjective]]:
    """Every adjective in the mentions, as (mention, kind of adjective)."""
    return [(mention, kind) for mention in mentions for kind in ADJECTIVES if getattr(mention, kind)]
