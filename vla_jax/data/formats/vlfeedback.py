"""VLFeedback, which Silkie was trained on: up to four answers of models, each rated by GPT-4V.

Pairs: all of two answers whose mean ratings differ, the better one chosen. Answers with a rating that is no
number ("N/A") are in no pair. `id` repeats in the published file, so records are known by their row.

Source: Li et al. 2023, Silkie, section 3; the layouts are those of `vlfeedback_80k.jsonl` (a list of
completions) and of the parquet shards (a dict of lists).
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from vla_jax.data.formats.fields import Format, OpenImage, picture, question_of, text
from vla_jax.data.rows import Row, RowError
from vla_jax.data.schema import CHOSEN, REJECTED, Record

ASPECTS = ("Helpfulness", "Visual Faithfulness", "Ethical Considerations")


class Rated(NamedTuple):
    """An answer and the mean of its ratings."""

    place: int
    response: str
    rating: float


def records(row: Row, image: OpenImage) -> Sequence[Record]:
    """One record a pair."""
    shown, question = picture(row, image, "img_path", "image"), question_of(text(row, "prompt"))
    return [
        Record(
            key=f"{better.place} over {worse.place}",
            images=shown,
            question=question,
            responses={CHOSEN: better.response, REJECTED: worse.response},
            ratings={CHOSEN: better.rating, REJECTED: worse.rating},
        )
        for better, worse in _pairs(row)
    ]


def _pairs(row: Row) -> list[tuple[Rated, Rated]]:
    rated = [each for each in _completions(row) if not math.isnan(each.rating)]
    ordered = (sorted(pair, key=lambda each: -each.rating) for pair in combinations(rated, 2))
    return [(better, worse) for better, worse in ordered if better.rating > worse.rating]


def _completions(row: Row) -> list[Rated]:
    """Every answer; its rating is nan where it has none."""
    completions = row.get("completions")
    if isinstance(completions, Mapping):
        completions = _rows_of(completions)
    if not isinstance(completions, list) or not all(isinstance(each, Mapping) for each in completions):
        raise RowError("has no list 'completions'", "fetch the file again or remove the record")
    return [
        Rated(place, text(each, "response"), _mean_rating(each.get("annotations")))
        for place, each in enumerate(completions)
    ]


def _rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A dict of lists as a list of dicts, however deep the lists lie."""
    lists = [value for value in columns.values() if isinstance(value, list)]
    nested = {key: _rows_of(value) for key, value in columns.items() if isinstance(value, Mapping)}
    lengths = {len(value) for value in (*lists, *nested.values())}
    if len(lists) + len(nested) < len(columns):
        raise RowError("has 'completions' with a field that is no list", "fetch the file again")
    if len(lengths) != 1:
        raise RowError("has 'completions' whose fields differ in length", "fetch the file again")
    return [
        {key: nested[key][i] if key in nested else value[i] for key, value in columns.items()}
        for i in range(lengths.pop())
    ]


def _mean_rating(annotations: Any) -> float:
    if not isinstance(annotations, Mapping):
        raise RowError("has a completion without 'annotations'", "fetch the file again or remove the record")
    aspects = [annotations.get(aspect) or {} for aspect in ASPECTS]
    if not all(isinstance(aspect, Mapping) for aspect in aspects):
        raise RowError("has an aspect that is no {Rating, Rationale}", "correct it or remove the record")
    ratings = [_number(aspect.get("Rating")) for aspect in aspects]
    return sum(ratings) / len(ratings)


def _number(rating: Any) -> float:
    """A rating; nan for what is published where there is none."""
    try:
        value = float(rating)
    except (TypeError, ValueError):
        return math.nan
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise RowError(f"has a rating that is {value}", "correct it or remove the record")
    return value


FORMAT = Format(records, lambda row: len(_pairs(row)))
