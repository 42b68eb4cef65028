"""Question-answer turns about a scene; all answers are true but for what an annotator imagines."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np

from vla_jax.data.schema import Turn
from vla_jax.data.world.categories import CATEGORIES, CATEGORY, COLOURS
from vla_jax.data.world.config import WorldConfig
from vla_jax.data.world.draws import chance, pick, pick_weighted
from vla_jax.data.world.scenes import Scene, SceneObject
from vla_jax.data.world.text import COUNT_WORDS, article

# Centres nearer than this, as a fraction of the image's side, stand neither left nor right of each other.
CLEARLY_APART = 0.2


class Relation(NamedTuple):
    """A spatial relation: its words, the axis it is about, and the sign of subject minus object along it."""

    words: str
    axis: str
    sign: int


RELATIONS = (
    Relation("left of", "x", -1),
    Relation("right of", "x", 1),
    Relation("above", "y", -1),
    Relation("below", "y", 1),
)


def yes_or_no(answer: bool) -> str:
    """The answer as a sentence."""
    return "Yes." if answer else "No."


def existence_question(name: str) -> str:
    """Whether the category is in the picture."""
    return f"Is there {article(name)} {name} in the picture?"


def existence_turn(name: str, answer: bool) -> Turn:
    """The question whether the category is in the picture, and its answer."""
    return Turn(existence_question(name), yes_or_no(answer))


def draw_questions(
    rng: np.random.Generator, config: WorldConfig, scene: Scene, imagined: Collection[str]
) -> list[Turn]:
    """Different questions about the scene: existence, number, colour, place.

    The answers are true, except that an annotator who imagines a category says it is there.
    """

    def existence(rng: np.random.Generator, scene: Scene) -> Turn:
        name = _asked_for(rng, scene)
        return existence_turn(name, name in scene.names or name in imagined)

    rest = (1 - config.existence_questions) / len(_FURTHER_KINDS)
    weights = (config.existence_questions, *[rest] * len(_FURTHER_KINDS))
    turns: dict[str, Turn] = {}
    while len(turns) < config.questions_per_record:
        turn = pick_weighted(rng, (existence, *_FURTHER_KINDS), weights)(rng, scene)
        if turn is not None:
            turns.setdefault(turn.question, turn)
    return list(turns.values())


def _asked_for(rng: np.random.Generator, scene: Scene) -> str:
    """A category that is there or is not, equally often; half of the absent are partners of present ones."""
    if chance(rng, 0.5):
        return pick(rng, scene.names)
    partners = [p for name in scene.names if (p := CATEGORY[name].partner) not in scene.names]
    anything = [category.name for category in CATEGORIES if category.name not in scene.names]
    return pick(rng, partners if partners and chance(rng, 0.5) else anything)


def _number(rng: np.random.Generator, scene: Scene) -> Turn:
    """How many there are of a present category; half of the time one with two instances, if there is any."""
    doubles = [name for name in scene.names if len(scene.instances(name)) > 1]
    name = pick(rng, doubles if doubles and chance(rng, 0.5) else scene.names)
    answer = COUNT_WORDS[len(scene.instances(name))].capitalize()
    return Turn(f"How many {CATEGORY[name].plural} are there?", f"{answer}.")


def _colour(rng: np.random.Generator, scene: Scene) -> Turn:
    name = pick(rng, scene.names)
    instances = scene.instances(name)
    subject = f"is the {name}" if len(instances) == 1 else f"are the {CATEGORY[name].plural}"
    return Turn(f"What colour {subject}?", f"{instances[0].colour.capitalize()}.")


def _place(rng: np.random.Generator, scene: Scene) -> Turn | None:
    """A relation of two single objects that are clearly apart along its axis; None where there are none."""
    singles = [thing for thing in scene.objects if len(scene.instances(thing.name)) == 1]
    relation = pick(rng, RELATIONS)
    pairs = [(a, b) for a in singles for b in singles if abs(_distance(a, b, relation)) >= CLEARLY_APART]
    if not pairs:
        return None
    subject, other = pick(rng, pairs)
    answer = _distance(subject, other, relation) > 0
    return Turn(_relation_question(subject.name, relation, other.name), yes_or_no(answer))


def _relation_question(subject: str, relation: Relation, other: str) -> str:
    return f"Is the {subject} {relation.words} the {other}?"


def _distance(subject: SceneObject, other: SceneObject, relation: Relation) -> float:
    """How far the subject stands where the relation says, from the other; negative on the other side."""
    return relation.sign * (getattr(subject, relation.axis) - getattr(other, relation.axis))


_FURTHER_KINDS = (_number, _colour, _place)


def every_question_word() -> Iterable[Turn]:
    """Turns that between them hold every word a question or its answer can."""
    for category in CATEGORIES:
        yield existence_turn(category.name, True)
        yield Turn(f"How many {category.plural} are there?", "One.")
        yield Turn(f"What colour are the {category.plural}?", "Red.")
        yield Turn(f"What colour is the {category.name}?", "Red.")
        for relation in RELATIONS:
            yield Turn(_relation_question(category.name, relation, category.partner), yes_or_no(False))
    for colour in COLOURS:
        yield Turn("What colour is the cup?", f"{colour.capitalize()}.")
    for count in COUNT_WORDS.values():
        yield Turn("How many cups are there?", f"{count.capitalize()}.")
