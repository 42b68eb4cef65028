"""A page that shows what is in a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from vla_jax.data import Record
from vla_jax.data.inspection import Inspection
from vla_jax.report.curves import histogram
from vla_jax.report.writing import picture, render, write_whole

_SHARES = (5, 50, 95, 99, 100)
# Of bad records; all of them are printed by whoever inspects.
_MOST_LISTED = 200


def write_records(path: Path, title: str, found: Inspection, gallery: Sequence[Record]) -> None:
    """Writes one HTML file that needs no network, no script and no other file.

    Args:
      path: where to; missing folders are made. The file appears whole or not at all.
      title: the heading.
      found: what the data set holds.
      gallery: records to show.
    """
    heights, widths = ([size[axis] for size in found.sizes] for axis in (0, 1))
    drawn = {f"words of {name}": lengths for name, lengths in found.lengths.items()}
    drawn |= {"image width": widths, "image height": heights} if found.sizes else {}
    page = render(
        "records.html.jinja",
        title=title,
        facts={
            "good records": f"{found.good:,}",
            "bad": f"{len(found.bad):,}",
            **{f"{count} images": f"{records:,}" for count, records in sorted(found.images.items())},
            "repeated images": f"{found.repeated_images:,}",
            **{f"with {kind}": f"{count:,}" for kind, count in found.objects.items()},
        },
        shares=_SHARES,
        lengths=[_lengths(name, lengths) for name, lengths in found.lengths.items()],
        charts=[
            {"name": name, "svg": Markup(histogram(name, values))} for name, values in drawn.items() if values
        ],
        skipped=found.bad[:_MOST_LISTED],
        gallery=[_card(record) for record in gallery],
    )
    write_whole(path, page)


def _lengths(name: str, lengths: Sequence[int]) -> dict[str, Any]:
    quantiles = np.percentile(lengths, _SHARES, method="higher")
    return {
        "name": name,
        "mean": f"{np.mean(lengths):.1f}",
        "quantiles": [f"{value:.0f}" for value in quantiles],
    }


def _card(record: Record) -> dict[str, Any]:
    ratings = {role: f"{role}, rated {rating:g}" for role, rating in record.ratings.items()}
    answers = {ratings.get(role, role): text for role, text in record.responses.items()}
    for place, turn in enumerate(record.further_turns, start=2):
        answers[f"turn {place}: {turn.question}"] = turn.answer
    return {
        "key": record.key,
        "images": [picture(image.pixels()) for image in record.images],
        "objects": list(dict.fromkeys(o.name for o in record.objects if o.name)),
        "history": record.history,
        "question": record.question,
        "answers": answers,
    }
