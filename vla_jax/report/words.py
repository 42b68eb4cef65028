"""A page that shows how far a verifier tells correct object words from hallucinated ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vla_jax.report.curves import densities, scatter
from vla_jax.report.writing import render, write_whole
from vla_jax.rewards.word_scores import WordScores, pearson, separation


def write_words(path: Path, title: str, facts: Mapping[str, str], sides: Mapping[str, WordScores]) -> None:
    """Writes one HTML file that needs no network, no script and no other file.

    Args:
      path: where to; missing folders are made. The file appears whole or not at all.
      title: the heading.
      facts: what stands under it.
      sides: when -> what was scored then.
    """
    rows = [row for when, scores in sides.items() for row in _rows(when, scores)]
    charts = [chart for when, scores in sides.items() for chart in _charts(when, scores)]
    write_whole(path, render("words.html.jinja", title=title, facts=facts, rows=rows, charts=charts))


def figures(scores: WordScores) -> dict[str, dict[str, float]]:
    """Level -> its figures: means of both kinds of words, separation, Pearson's r, seconds a caption."""
    levels = {
        "word": (scores.words, scores.mean_words, scores.word_seconds),
        "sentence": (scores.sentences, scores.captions, scores.sentence_seconds),
    }
    return {
        level: {
            "correct": float(of_words[scores.correct].mean()),
            "hallucinated": float(of_words[~scores.correct].mean()),
            "separation": separation(of_words, scores.correct),
            "pearson": pearson(of_captions, scores.precision),
            "seconds": seconds,
        }
        for level, (of_words, of_captions, seconds) in levels.items()
    }


def _rows(when: str, scores: WordScores) -> list[dict[str, Any]]:
    counts = {
        "n_correct": int(scores.correct.sum()),
        "n_hallucinated": int((~scores.correct).sum()),
        "n_captions": len(scores.captions),
    }
    return [{"when": when, "level": level, **found, **counts} for level, found in figures(scores).items()]


def _charts(when: str, scores: WordScores) -> list[dict[str, Any]]:
    drawn = {}
    for level, values in (("words", scores.words), ("sentences", scores.sentences)):
        kinds = {"correct": values[scores.correct], "hallucinated": values[~scores.correct]}
        drawn[f"{when}: scores of {level}"] = densities(f"{when} {level}", "score", kinds)
    for level, values in (("mean score of words", scores.mean_words), ("score of caption", scores.captions)):
        name = f"{when}: {level}, r = {pearson(values, scores.precision):.2f}"
        drawn[name] = scatter(name, level, "correct words, share", values, scores.precision)
    return [{"name": name, "svg": Markup(svg)} for name, svg in drawn.items()]
