"""Runs a function of a test module in a process that sees eight devices where there is one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
DEVICES = 8


def on_virtual_devices(module: str, function: str) -> Any:
    """What `function()` returns there, through JSON.

    Args:
      module: where it stands, as in an import.
      function: its name.
    """
    # Compiling is nearly all of the work here, so the compiler is asked for less.
    flags = f"--xla_force_host_platform_device_count={DEVICES} --xla_backend_optimization_level=0"
    run = subprocess.run(
        [sys.executable, "-c", f"import json; from {module} import {function} as f; print(json.dumps(f()))"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])
