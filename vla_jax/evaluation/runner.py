"""Puts a model's free answers before the scorers."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_jax.data import DataError, Source
from vla_jax.data.schema import decoded
from vla_jax.data.vocabulary import Vocabulary
from vla_jax.evaluation.chair import chair
from vla_jax.evaluation.pope import Pope, pope

# Longest answer to a yes/no probe: "Yes." and the end of sequence, with room to spare.
_PROBE_TOKENS = 6


@dataclass(frozen=True)
class Evaluation:
    """What a model said and what it is worth.

    Attributes:
      scores: chair_s, chair_i, recall, n; where there are probes, pope_f1, pope_accuracy, pope_yes_ratio
        (means over the splits), pope_n, and `pope` with each split's figures. In percent.
      captions: its answers, one an evaluated record.
      records: source indices of those records.
    """

    scores: Mapping[str, Any]
    captions: tuple[str, ...]
    records: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"scores": dict(self.scores), "captions": list(self.captions), "records": list(self.records)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Evaluation":
        """The inverse of `to_dict`."""
        return cls(values["scores"], tuple(values["captions"]), tuple(values["records"]))


def run(
    answer: Callable[..., list[str]],
    source: Source,
    vocabulary: Vocabulary,
    *,
    max_new_tokens: int,
    skip_bad_records: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Asks a model about every record of a source, and scores what it says.

    Args:
      answer: (images, questions, max_new_tokens=, progress=) -> answers.
      source: records with objects; where it has a method `probes(index)`, they are asked too.
      vocabulary: the objects CHAIR looks for.
      max_new_tokens: where a caption is cut.
      skip_bad_records: leave out unreadable records instead of raising.
      progress: called with the number of new answers.

    Raises:
      DataError: at an unreadable record, unless they are skipped.
      ValueError: where no record names its objects.
    """
    records, images = {}, []
    for index in range(len(source)):
        try:
            record = source[index]
            if len(record.images) != 1 or not any(o.name for o in record.objects):
                continue
            images.append(decoded(record, getattr(source, "name", "data")))
        except DataError:
            if not skip_bad_records:
                raise
            continue
        records[index] = record
    if not records:
        raise ValueError("CHAIR needs to know what is in the images: no record names the objects of one")
    captions = answer(
        images,
        [record.question for record in records.values()],
        max_new_tokens=max_new_tokens,
        progress=progress,
    )
    objects = [
        {vocabulary.canonical(o.name) for o in record.objects if o.name} for record in records.values()
    ]
    scores = _chair_scores(captions, objects, vocabulary)
    if hasattr(source, "probes"):
        probes = [
            (image, probe)
            for index, image in zip(records, images, strict=True)
            for probe in source.probes(index)
        ]
        scores |= _pope_scores(answer, probes, progress)
    return Evaluation(scores, tuple(captions), tuple(records))


def _chair_scores(
    captions: Sequence[str], objects: Sequence[Collection[str]], vocabulary: Vocabulary
) -> dict[str, Any]:
    measured = chair(captions, objects, vocabulary)
    words = np.mean([len(caption.split()) for caption in captions])
    return {
        "chair_s": measured.chair_s,
        "chair_i": measured.chair_i,
        "recall": measured.recall,
        "n": measured.n,
        "mean_words": float(words),
    }


def _pope_scores(
    answer: Callable[..., list[str]], probes: Sequence[Any], progress: Callable[[int], object] | None
) -> dict[str, Any]:
    answers = answer(
        [image for image, _ in probes],
        [probe.question for _, probe in probes],
        max_new_tokens=_PROBE_TOKENS,
        progress=progress,
    )
    splits: dict[str, Pope] = {}
    for split in dict.fromkeys(probe.split for _, probe in probes):
        places = [i for i, (_, probe) in enumerate(probes) if probe.split == split]
        splits[split] = pope([answers[i] for i in places], [probes[i][1].answer for i in places])
    measures = ("accuracy", "precision", "recall", "f1", "yes_ratio")
    return {
        **{f"pope_{name}": float(np.mean([getattr(p, name) for p in splits.values()])) for name in measures},
        "pope_n": sum(p.n for p in splits.values()),
        "pope": {split: {name: getattr(p, name) for name in (*measures, "n")} for split, p in splits.items()},
    }
