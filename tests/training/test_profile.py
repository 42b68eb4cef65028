"""The profiler watches the steps that it is asked for, and no others."""

import gzip
import importlib.util
import json
import tempfile
from pathlib import Path

import jax
import pytest

from tests.virtual_devices import on_virtual_devices
from vla_jax.training.profile import ProfileConfig, Profiler

# --- what the subprocess does, where no TPU is looked for --------------------------------------------


def watched(config, done, steps):
    """Of these steps of a run of which some were done, those in its trace; None where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        with Profiler(config, Path(folder) / "profile", done) as profiler:
            for step in steps:
                profiler.before(step)
                with jax.profiler.TraceAnnotation(f"update {step}"):
                    pass
        if not (Path(folder) / "profile").exists():
            return None
        (trace,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    names = {event.get("name", "") for event in events}
    return sorted(int(name.split()[1]) for name in names if name.startswith("update "))


def windows():
    """Of several runs, the steps in their traces."""
    return [
        watched(ProfileConfig(start=2, steps=3), 10, range(11, 21)),
        watched(ProfileConfig(start=1, steps=5), 0, range(1, 4)),
        watched(ProfileConfig(), 0, range(1, 6)),
        watched(ProfileConfig(start=9, steps=2), 0, range(1, 6)),
    ]


# -----------------------------------------------------------------------------------------------------


def test_the_window_is_counted_from_this_start_and_ends_with_the_run():
    whole, cut_short, not_asked, not_reached = on_virtual_devices("tests.training.test_profile", "windows")
    assert whole == [13, 14, 15]
    assert cut_short == [2, 3]
    assert not_asked is None and not_reached is None


@pytest.fixture
def unasked():
    """No platform is asked for."""
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    yield
    jax.config.update("jax_platforms", before)


@pytest.mark.usefixtures("unasked")
def test_a_profiler_that_would_crash_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "libtpu")
    with pytest.raises(ValueError, match="profile.steps is set, .* set JAX_PLATFORMS=cpu"):
        Profiler(ProfileConfig(steps=1), tmp_path, 0)
    Profiler(ProfileConfig(), tmp_path, 0)
