"""How campaigns write what they found: Markdown tables, and pages whose last section people write."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

_FINDINGS = "## Findings"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation, which one value has not."""
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def write_page(page: Path, text: str) -> None:
    """Writes a page anew, but for its findings: people wrote them, and they stay as they stand."""
    before = page.read_text() if page.is_file() else ""
    findings = before[before.index(_FINDINGS) :] if _FINDINGS in before else f"{_FINDINGS}\n"
    page.write_text(f"{text}\n\n{findings}")
