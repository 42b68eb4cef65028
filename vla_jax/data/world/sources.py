"""The world as data sources: random access to records, each drawn from its own seed."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from enum import IntEnum

import numpy as np

from vla_jax.data.images import Pixels
from vla_jax.data.schema import CHOSEN, REJECTED, Record, Turn
from vla_jax.data.world.config import WorldConfig
from vla_jax.data.world.draws import between, chance, pick
from vla_jax.data.world.preferences import Preference, draw_preference
from vla_jax.data.world.probes import Probe, draw_probes
from vla_jax.data.world.questions import draw_questions, every_question_word
from vla_jax.data.world.render import render
from vla_jax.data.world.scenes import Scene, biased_scene, unbiased_scene
from vla_jax.data.world.text import (
    CAPTION_QUESTIONS,
    draw_caption,
    every_caption_word,
    imagined_mentions,
    true_mentions,
)


class _Stream(IntEnum):
    """The streams of random numbers; no two draws share one."""

    SUPERVISED = 1
    PREFERENCE = 2
    EVALUATION = 3
    LABEL_FLIPS = 4
    PROBES = 5
    TAGS = 6


class _World(ABC):
    """What the three worlds share: a length, keys, and one generator of random numbers per record."""

    _stream: _Stream

    def __init__(self, config: WorldConfig, size: int):
        if size < 0:
            raise ValueError(f"{type(self).__name__}: size is {size}; it must be 0 or more")
        self.config, self.size = config, size

    def __len__(self) -> int:
        return self.size

    @abstractmethod
    def __getitem__(self, index: int) -> Record:
        """The record at `index`, from 0 to `len(self) - 1`; IndexError elsewhere."""

    @abstractmethod
    def scene(self, index: int) -> Scene:
        """The scene of the record at `index`."""

    def _generator(self, index: int, stream: _Stream | None = None) -> np.random.Generator:
        if not 0 <= index < self.size:
            raise IndexError(f"{type(self).__name__} has {self.size} records; there is no record {index}")
        return np.random.default_rng([self.config.seed, stream or self._stream, index])

    def _key(self, index: int) -> str:
        return f"world/{self._stream.name.lower()}/seed{self.config.seed}/{index}"


class SupervisedWorld(_World):
    """Biased scenes as the biased annotator describes them: a caption and answers to questions.

    Args:
      config: the world.
      size: number of records.

    Raises:
      ValueError: where `size` is negative.
    """

    _stream = _Stream.SUPERVISED

    def scene(self, index: int) -> Scene:
        """The biased scene of the record at `index`."""
        return biased_scene(self._generator(index), self.config)

    def turns(self, index: int) -> tuple[Turn, ...]:
        """The conversation at `index`: a caption turn and `questions_per_record` questions."""
        return self._conversation(index)[1]

    def __getitem__(self, index: int) -> Record:
        scene, (first, *further) = self._conversation(index)
        image, objects = render(scene, self.config.image_size)
        return Record(
            key=self._key(index),
            images=(Pixels(image),),
            question=first.question,
            responses={CHOSEN: first.answer},
            further_turns=tuple(further),
            objects=tuple(objects),
        )

    def _conversation(self, index: int) -> tuple[Scene, tuple[Turn, ...]]:
        rng, config = self._generator(index), self.config
        scene = biased_scene(rng, config)
        imagined = imagined_mentions(rng, config, scene)
        mentions = [*true_mentions(rng, config, scene), *imagined]
        caption = Turn(pick(rng, CAPTION_QUESTIONS), str(draw_caption(rng, config, mentions)))
        turns = draw_questions(rng, config, scene, [mention.name for mention in imagined])
        place = 0 if chance(rng, config.caption_first) else between(rng, 0, len(turns))
        return scene, (*turns[:place], caption, *turns[place:])


class TagWorld(_World):
    """Unbiased scenes with tags: the name of everything in them and no other word.

    What teaches a vision tower soonest: nothing in the answer is a matter of taste.

    Args:
      config: the world.
      size: number of records.
    """

    _stream = _Stream.TAGS

    def scene(self, index: int) -> Scene:
        """The unbiased scene of the record at `index`."""
        return unbiased_scene(self._generator(index), self.config)

    def __getitem__(self, index: int) -> Record:
        scene = self.scene(index)
        image, objects = render(scene, self.config.image_size)
        return Record(
            key=self._key(index),
            images=(Pixels(image),),
            question=CAPTION_QUESTIONS[0],
            responses={CHOSEN: ", ".join(sorted(scene.names)) + "."},
            objects=tuple(objects),
        )


class PreferenceWorld(_World):
    """Biased scenes without an expected partner: a true caption is chosen, one that mentions it rejected.

    A share of `preference_questions` asks whether one object is there; the true answer is chosen.

    Args:
      config: the world.
      size: number of records.
      flip_labels: exchanges chosen and rejected in a random half of the records: the control that shows what
        training on such pairs does when the preference says nothing.

    Raises:
      ValueError: where `config.cooccurrence` is 1, for then no scene lacks an expected partner.
    """

    _stream = _Stream.PREFERENCE

    def __init__(self, config: WorldConfig, size: int, flip_labels: bool = False):
        super().__init__(config, size)
        if config.cooccurrence == 1:
            raise ValueError(
                "PreferenceWorld needs scenes that lack an anchor's partner; "
                "set WorldConfig.cooccurrence below 1"
            )
        self.flip_labels = flip_labels

    def scene(self, index: int) -> Scene:
        """The biased scene of the record at `index`; at least one anchor's partner is absent."""
        return self.preference(index).scene

    def preference(self, index: int) -> Preference:
        """The pair at `index` with its labels as they should be."""
        return draw_preference(self._generator(index), self.config)

    def responses(self, index: int) -> dict[str, str]:
        """Role -> caption at `index`, flipped where this world flips."""
        return self._labelled(index, self.preference(index))

    def __getitem__(self, index: int) -> Record:
        preference = self.preference(index)
        image, objects = render(preference.scene, self.config.image_size)
        return Record(
            key=self._key(index),
            images=(Pixels(image),),
            question=preference.question or CAPTION_QUESTIONS[index % len(CAPTION_QUESTIONS)],
            responses=self._labelled(index, preference),
            objects=tuple(objects),
        )

    def _labelled(self, index: int, preference: Preference) -> dict[str, str]:
        texts = preference.texts
        if self.flip_labels and chance(self._generator(index, _Stream.LABEL_FLIPS), 0.5):
            texts = texts[::-1]
        return dict(zip((CHOSEN, REJECTED), texts, strict=True))


class EvaluationWorld(_World):
    """Unbiased scenes with a true caption, always asked for in the same words, and yes/no probes.

    Args:
      config: the world.
      size: number of records.
    """

    _stream = _Stream.EVALUATION

    def scene(self, index: int) -> Scene:
        """The unbiased scene of the record at `index`."""
        return unbiased_scene(self._generator(index), self.config)

    def probes(self, index: int) -> tuple[Probe, ...]:
        """The probes about the record at `index`, split by split."""
        return draw_probes(self._generator(index, _Stream.PROBES), self.config, self.scene(index))

    def __getitem__(self, index: int) -> Record:
        rng, config = self._generator(index), self.config
        scene = unbiased_scene(rng, config)
        caption = draw_caption(rng, config, true_mentions(rng, config, scene))
        image, objects = render(scene, config.image_size)
        return Record(
            key=self._key(index),
            images=(Pixels(image),),
            question=CAPTION_QUESTIONS[0],
            responses={CHOSEN: str(caption)},
            objects=tuple(objects),
        )


def training_corpus(config: WorldConfig, records: int) -> Iterator[str]:
    """Text to train a tokenizer on; nothing is rendered.

    Args:
      config: the world.
      records: how many supervised and how many preference records to read.

    Yields:
      Questions and answers: first some that hold every word the world can say, then those of the records.
    """
    yield from CAPTION_QUESTIONS
    yield from every_caption_word()
    for turn in every_question_word():
        yield from (turn.question, turn.answer)
    supervised, preferences = SupervisedWorld(config, records), PreferenceWorld(config, records)
    for index in range(records):
        for turn in supervised.turns(index):
            yield from (turn.question, turn.answer)
        yield from preferences.responses(index).values()
