"""Preference pairs about the built-in world, each set made in another way, for reward models to learn from.

`swapped noun` is the world's own set: an object that company suggests in place of one that is there, and some
yes/no questions. `added noun` adds it to those that are there, in place of adjectives. `wrong colour` names
everything that is there and one colour wrong. `yes/no` has questions alone. `own answer` rejects what the
supervised model says of the picture, where that names something that is not there.

A set gives the records of some places; two sets have no scene in common but at the same places.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ml_collections import ConfigDict

from vla_jax.data import Record
from vla_jax.data.schema import CHOSEN, REJECTED
from vla_jax.data.world import COLOURS, PreferenceWorld, mentioned_categories
from vla_jax.generate import answerer
from vla_jax.train import base_model
from vla_jax.training.assembly import world_of

# Longest answer of the supervised model that is read.
_MOST_TOKENS = 40


@dataclass(frozen=True)
class Made:
    """Records that are made when they are read.

    Attributes:
      places: of the records in the world.
      record: the record at a place.
    """

    places: Sequence[int]
    record: Callable[[int], Record]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Record:
        return self.record(self.places[index])


MakeSet = Callable[[ConfigDict, range], Made]


def of_the_world(**settings: float) -> MakeSet:
    """The world's own pairs, with these of its settings changed."""

    def make(config: ConfigDict, places: range) -> Made:
        return Made(places, _world(config, places, **settings).__getitem__)

    return make


def wrong_colour(config: ConfigDict, places: range) -> Made:
    """One colour of a true caption that names all of them is another."""
    world = _world(config, places, colour_words=1.0, preference_questions=0.0)
    colours = tuple(COLOURS)

    def record(place: int) -> Record:
        caption = world.preference(place).chosen
        mention = caption.mentions[place % len(caption.mentions)]
        further = 1 + place % (len(colours) - 1)
        other = colours[(colours.index(mention.colour) + further) % len(colours)]
        rejected = caption.replaced(mention, mention.stating("colour", other))
        return replace(world[place], responses={CHOSEN: str(caption), REJECTED: str(rejected)})

    return Made(places, record)


def own_answer(config: ConfigDict, places: range) -> Made:
    """The true caption against the supervised model's own, where that names something that is not there."""
    world = _world(config, places, preference_questions=0.0)
    model = base_model(config)
    asked = answerer(model, config.data.max_prompt_length, config.evaluation.batch_size)
    records = [world[place] for place in places]
    answers = asked.answer(
        [record.image for record in records],
        [record.question for record in records],
        max_new_tokens=_MOST_TOKENS,
    )
    pairs = {
        place: replace(record, responses={CHOSEN: record.responses[CHOSEN], REJECTED: answer})
        for place, record, answer in zip(places, records, answers, strict=True)
        if set(mentioned_categories(answer)) - {known.name for known in record.objects}
    }
    return Made(tuple(pairs), pairs.__getitem__)


def _world(config: ConfigDict, places: range, **settings: float) -> PreferenceWorld:
    world = world_of(config, config.model.vision.image_size)
    return PreferenceWorld(replace(world, **settings), places.stop)


SETS: dict[str, MakeSet] = {
    "swapped noun": of_the_world(),
    "added noun": of_the_world(
        swap_fraction=0.0, max_sentences=2, colour_words=0.3, size_words=0.3, preference_questions=0.0
    ),
    "wrong colour": wrong_colour,
    "yes/no": of_the_world(preference_questions=1.0),
    "own answer": own_answer,
}
