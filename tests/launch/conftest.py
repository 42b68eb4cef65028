"""What the tests of the launchers share."""

from pathlib import Path

import pytest

from tests.launch.commands import Tools, tools_in


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """Stand-ins for what the launchers call."""
    return tools_in(tmp_path / "tools")
