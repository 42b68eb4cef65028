"""Runs the launchers beside stand-ins for what they call, which write down how they were called."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = ("gcloud", "kubectl", "docker", "sky", "srun", "scontrol", "sleep")

# Words and calls end with characters that no command has.
_STAND_IN = """#!/usr/bin/env bash
printf '%s\\x1f' {name} "$@" >> '{log}'
printf '\\x1e' >> '{log}'
{body}
"""


@dataclass(frozen=True)
class Tools:
    """Stand-ins in a folder.

    Attributes:
      folder: where they lie, first on the path.
    """

    folder: Path

    def calls(self) -> list[list[str]]:
        """How they were called since last asked, word by word."""
        log = self.folder / "calls"
        text = log.read_text() if log.exists() else ""
        log.unlink(missing_ok=True)
        return [call.split("\x1f")[:-1] for call in text.split("\x1e")[:-1]]

    def write(self, name: str, body: str) -> None:
        """Makes one that writes its call down and goes on with `body`."""
        tool = self.folder / name
        tool.write_text(_STAND_IN.format(name=name, log=self.folder / "calls", body=body))
        tool.chmod(0o755)

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a command from the repository's root, for no longer than a minute."""
        environment: Mapping[str, str] = {
            "PATH": f"{self.folder}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            **variables,
        }
        return subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60
        )

    def launch(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a launcher."""
        return self.run(REPOSITORY / "launch" / script, *arguments, **variables)


def tools_in(folder: Path) -> Tools:
    """Stand-ins for all tools, each of which succeeds."""
    folder.mkdir()
    tools = Tools(folder)
    for name in TOOLS:
        tools.write(name, "exit 0")
    return tools
