"""The trainer's process keeps the memory that steps free."""

import subprocess
import sys

import pytest

from vla_jax.training import host_memory

# Page faults of the call in the middle of twenty-five, sorted by them; intermediate results take 64 MB. Now
# and then a call adds to the memory that is kept, where a small piece lies in what the one before it freed.
FAULTS = """
import resource, statistics, sys
from vla_jax.training.host_memory import keep_freed_memory
assert "keep" not in sys.argv or keep_freed_memory()
import jax, jax.numpy as jnp
product = jax.jit(lambda x: jnp.sum(jnp.sin(x @ x.T) @ x))
x = jnp.ones((4096, 256))
counted = []
for call in range(25):
    product(x).block_until_ready()
    counted.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(statistics.median(after - before for before, after in zip(counted, counted[1:])))
"""


def page_faults(*arguments):
    run = subprocess.run(
        [sys.executable, "-c", FAULTS, *arguments], check=True, capture_output=True, text=True
    )
    return float(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_steps_use_the_same_pages_again(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    before = page_faults()
    assert before > 1000
    assert page_faults("keep") < before / 20


@pytest.mark.parametrize("platforms", ["tpu", "cuda,cpu"])
def test_a_host_of_accelerators_is_left_as_it_is(monkeypatch, platforms):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    assert not host_memory.keep_freed_memory()


def test_another_c_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(host_memory.platform, "libc_ver", lambda: ("", ""))
    assert not host_memory.keep_freed_memory()
