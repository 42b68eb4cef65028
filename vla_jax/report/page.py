"""Lays the report out and writes it."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup
from PIL import Image

from vla_jax.evaluation import Vocabulary
from vla_jax.report.curves import charts
from vla_jax.report.marking import mark
from vla_jax.report.measures import measures

# Photographs are shrunk to this before they go into the page; a gallery of full-size ones would weigh 20 MB.
_LONGEST_SIDE = 384

# Below this an image is a drawing of the built-in world, and its pixels should be seen as such.
_CRISP_BELOW = 160


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
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": _figure, "signed": _signed}
    template = resources.files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        title=title,
        facts=_facts(summary),
        command=summary.get("command", ""),
        measures=measures(summary),
        charts=[(chart, Markup(chart.svg)) for chart in charts(metrics)],
        gallery=[_card(item, vocabulary) for item in gallery],
        views=[_strip(strip) for strip in views],
        config_text=config_text,
    )
    _write_whole(path, page)


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
        "image": _picture(item.image),
        "objects": item.objects,
        "question": item.question,
        "answers": {when: mark(text, item.objects, vocabulary) for when, text in answers.items()},
    }


def _strip(strip: ViewStrip) -> dict[str, Any]:
    if len(strip.captions) != len(strip.views):
        raise ValueError(
            f"report: {len(strip.views)} views but {len(strip.captions)} captions; give one each"
        )
    pictures = [_picture(view) for view in strip.views]
    return {"pictures": list(zip(pictures, strip.captions, strict=True)), "response": strip.response}


def _picture(image: UInt8[np.ndarray, "y x 3"]) -> dict[str, Any]:
    """The image as a PNG data URL, and whether its pixels should stay sharp when it is enlarged."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"report: an image is uint8 [y x 3], not {image.dtype} {list(image.shape)}")
    picture = Image.fromarray(image)
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"url": f"data:image/png;base64,{data}", "crisp": max(picture.size) < _CRISP_BELOW}


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


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # A tokenizer can decode to half a surrogate pair, which UTF-8 cannot hold: show its code instead.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
