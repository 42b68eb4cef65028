"""Curves and histograms as inline SVG that takes its ink from the page around it."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Told apart without red and green (Okabe and Ito, 2008), lightened to stand on white and on near-black.
BLUE, ORANGE, GREY = "#2f8fd0", "#e0763a", "#8a8f98"

# Drawn in a colour that nothing else has, then replaced, so that axes follow the page's light or dark text.
_INK = "#010203"

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclass(frozen=True)
class Chart:
    """One drawing: its `title`, the `svg` element, and a `note` on values that could not be drawn (or "")."""

    title: str
    svg: str
    note: str


_CHARTS: tuple[tuple[str, Mapping[str, tuple[str, str]]], ...] = (
    ("Loss", {"loss": ("loss", BLUE), "eval_loss": ("held out", ORANGE)}),
    (
        "Implicit rewards",
        {
            "rewards/chosen": ("chosen", BLUE),
            "rewards/rejected": ("rejected", ORANGE),
            "rewards/margins": ("margin", GREY),
        },
    ),
    ("Chosen preferred over rejected", {"rewards/accuracies": ("accuracy", BLUE)}),
    (
        "Log-probability of answers",
        {"logps/chosen": ("chosen", BLUE), "logps/rejected": ("rejected", ORANGE)},
    ),
    ("Reward of sampled answers", {"reward": ("reward", BLUE), "reward_std": ("its spread", GREY)}),
    ("Divergence from the reference, nats a token", {"kl": ("divergence", BLUE)}),
    ("Length of sampled answers, tokens", {"completions/mean_length": ("length", BLUE)}),
    (
        "Sampled answers that repeat",
        {
            "completions/repetition": ("themselves", BLUE),
            "completions/sameness": ("the commonest one", ORANGE),
        },
    ),
    ("Gradient norm", {"grad_norm": ("gradient norm", BLUE)}),
    ("Examples per second", {"examples_per_second": ("examples per second", BLUE)}),
)


def charts(metrics: Sequence[Mapping[str, float]]) -> tuple[Chart, ...]:
    """Draws the charts for which `metrics` holds values.

    Args:
      metrics: one mapping a logged step, with `step` and any of the keys of `_CHARTS`. A value that is not
        finite, or None, leaves a gap in its curve and is counted in the chart's note.
    """
    drawn = []
    for title, curves in _CHARTS:
        series = {key: _series(metrics, key) for key in curves}
        series = {key: values for key, values in series.items() if len(values)}
        if series:
            lost = sum(int(np.isnan(values[:, 1]).sum()) for values in series.values())
            total = sum(len(values) for values in series.values())
            note = f"{lost} of {total} values are not finite" if lost else ""
            drawn.append(Chart(title, _draw(title, {curves[key]: v for key, v in series.items()}), note))
    return tuple(drawn)


def _series(metrics: Sequence[Mapping[str, float]], key: str) -> Float[np.ndarray, "rows 2"]:
    """(step, value) of the rows that have `key`; values that are not finite become NaN."""
    pairs = [(row["step"], np.nan if row[key] is None else row[key]) for row in metrics if key in row]
    series = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    series[~np.isfinite(series[:, 1]), 1] = np.nan
    return series


def histogram(title: str, values: Sequence[int]) -> str:
    """How often whole numbers lie where, as an `svg` element."""

    def draw(axes: Axes) -> None:
        axes.hist(values, bins=min(30, max(values) - min(values) + 1), color=BLUE)

    return _drawn(title, draw)


def densities(title: str, label: str, groups: Mapping[str, Float[np.ndarray, "_"]]) -> str:
    """How two kinds of values are spread over the same axis, each to an area of 1, as an `svg` element."""
    values = np.concatenate(list(groups.values()))
    edges = np.linspace(values.min(), values.max() + 1e-6, 31).tolist()

    def draw(axes: Axes) -> None:
        for (name, own), colour in zip(groups.items(), (BLUE, ORANGE), strict=True):
            axes.hist(own, edges, density=True, histtype="stepfilled", color=colour, alpha=0.35)
            axes.hist(own, edges, density=True, histtype="step", color=colour, label=f"{name} ({len(own)})")
        axes.set_xlabel(label)
        axes.legend(frameon=False, loc="best", handlelength=1.2, fontsize=8)

    return _drawn(title, draw)


def scatter(
    title: str, x_label: str, y_label: str, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
) -> str:
    """Pairs of values, as an `svg` element."""

    def draw(axes: Axes) -> None:
        axes.scatter(x, y, s=8, color=BLUE, alpha=0.4, linewidths=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)

    return _drawn(title, draw)


def _draw(title: str, series: Mapping[tuple[str, str], Float[np.ndarray, "rows 2"]]) -> str:
    def draw(axes: Axes) -> None:
        for (label, colour), values in series.items():
            step, value = values.T
            smooth = _smooth(value)
            if smooth is not value:
                axes.plot(step, value, color=colour, linewidth=0.7, alpha=0.3)
            axes.plot(
                step, smooth, color=colour, linewidth=1.6, label=label, marker="o" if len(step) == 1 else ""
            )
        axes.set_xlabel("step")
        if len(series) > 1:
            axes.legend(frameon=False, loc="best", handlelength=1.2, fontsize=8)

    return _drawn(title, draw)


def _drawn(title: str, draw: Callable[[Axes], None]) -> str:
    # The salt makes ids, and with them the page, the same at every run and different between charts.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(3.6, 2.1), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.grid(axis="y", color=_INK, alpha=0.12, linewidth=0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_alpha(0.4)
        axes.tick_params(length=0)
        axes.locator_params(axis="y", nbins=5)
        buffer = io.StringIO()
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")


def _smooth(value: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    """A centred running mean over a 25th of the rows, blind to NaN; `value` itself where rows are few."""
    window = len(value) // 25
    if window < 2:
        return value
    kernel, known = np.ones(window), np.isfinite(value)
    count = np.convolve(known, kernel, mode="same")
    total = np.convolve(np.where(known, value, 0.0), kernel, mode="same")
    return np.divide(total, count, out=np.full_like(value, np.nan), where=known)
