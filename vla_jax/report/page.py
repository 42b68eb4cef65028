"""Lays the report out and writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from vla_jax.evaluation import Vocabulary
from vla_jax.report.curves import charts
from vla_jax.report.marking import mark
from vla_jax.report.measures import measures
from vla_jax.report.writing import picture, render, write_whole


@dataclass(frozen=True)
class GalleryItem:
    """One image with what the model said about it before and after training.

    Attributes:
      image: RGB, uint8 [y x 3].
      objects: names of all that is in it, known to the report's vocabulary.
      question: what the model was asked.
      before, after: its answers.
    """

    image: UInt8[np.ndarray, "y x 3"]
    objects: tuple[str, ...]
    question: str
    before: str
    after: str


@dataclass(frozen=True)
class ViewStrip:
    """The views a recipe made of one training example.

    Attributes:
      views: RGB, uint8 [v y x 3].
      captions: one a view.
      response: the answer that was scored.
    """

    views: UInt8[np.ndarray, "v y x 3"]
    captions: tuple[str, ...]
    response: str


def write_report(
    path: Path,
    *,
    title: str,
    summary: Mapping[str, Any],
    metrics: Sequence[Mapping[str, float]],
    gallery: Sequence[GalleryItem],
    views: Sequence[ViewStrip],
    vocabulary: Vocabulary,
    config_text: str,
) -> None:
    """Writes one HTML file that needs no network, no script and no other file.

    Everything a model or a user wrote is escaped. The file appears whole or not at all.

    Args:
      path: where to; missing folders are made.
      title: the heading.
      summary: `before` and `after` (see `measures`), `command` that reproduces the run, `seconds` it took,
        and any further scalars (`recipe`, `seed`, ...), shown as they stand. All of them may be absent.
      metrics: rows of `metrics.jsonl` (see `charts`).
      gallery: answers to compare; words for absent objects are marked as CHAIR counts them.
      views: what the recipe showed the model.
      vocabulary: the objects that are looked for.
      config_text: the full configuration.

    Raises:
      ValueError: an image that is not uint8 RGB, a strip with another number of captions than views, or an
        object of a gallery item that is not in the vocabulary.
    """
    page = render(
        "page.html.jinja",
        {"figure": _figure, "signed": _signed},
        title=title,
        facts=_facts(summary),
        command=summary.get("command", ""),
        measures=measures(summary),
        charts=[(chart, Markup(chart.svg)) for chart in charts(metrics)],
        gallery=[_card(item, vocabulary) for item in gallery],
        views=[_strip(strip) for strip in views],
        config_text=config_text,
    )
    write_whole(path, page)


def _facts(summary: Mapping[str, Any]) -> dict[str, str]:
    """What was run, in short: every scalar of the summary but the command, with a readable duration."""
    facts = {
        key.replace("_", " "): str(value)
        for key, value in summary.items()
        if key not in ("before", "after", "command", "seconds") and not isinstance(value, Mapping)
    }
    if (seconds := summary.get("seconds")) is not None:
        facts["took"] = _duration(seconds)
    return facts


def _card(item: GalleryItem, vocabulary: Vocabulary) -> dict[str, Any]:
    answers = {"before": item.before, "after": item.after}
    return {
        "image": picture(item.image),
        "objects": item.objects,
        "question": item.question,
        "answers": {when: mark(text, item.objects, vocabulary) for when, text in answers.items()},
    }


def _strip(strip: ViewStrip) -> dict[str, Any]:
    if len(strip.captions) != len(strip.views):
        raise ValueError(
            f"report: {len(strip.views)} views but {len(strip.captions)} captions; give one each"
        )
    pictures = [picture(view) for view in strip.views]
    return {"pictures": list(zip(pictures, strip.captions, strict=True)), "response": strip.response}


def _figure(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.1f}"


def _signed(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
