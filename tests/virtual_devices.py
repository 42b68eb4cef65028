"""Runs a function of a test module in a process that sees eight devices where there is one."""

import importlib
import json
import sys
from typing import Any

from tests.forked import run

DEVICES = 8


def on_virtual_devices(module: str, function: str) -> Any:
    """What `function()` returns there, through JSON.

    Args:
      module: where it stands, as in an import.
      function: its name.
    """
    # Compiling is nearly all of the work here, so the compiler is asked for less.
    flags = f"--xla_force_host_platform_device_count={DEVICES} --xla_backend_optimization_level=0"
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = run("tests.virtual_devices", module, function, environment=environment, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    _, name, wanted = sys.argv
    print(json.dumps(getattr(importlib.import_module(name), wanted)()))
