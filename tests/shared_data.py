"""Where the real files some tests measure themselves against lie; they are not part of this repository."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def shared(folder: str) -> Path:
    """`SHARED_DATA / folder`; skips the calling test, with the reason, where it is absent."""
    path = SHARED_DATA / folder
    if not path.is_dir():
        pytest.skip(f"needs the real files in {path}, which are not on this machine")
    return path
