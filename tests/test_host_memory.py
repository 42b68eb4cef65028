"""A process on a CPU keeps the memory that steps free, in huge pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vla_jax import host_memory

HUGE_PAGES_GIVEN = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# Page faults of the call in the middle of twenty-five, sorted by them; intermediate results take 64 MB. Now
# and then a call adds to the memory that is kept, where a small piece lies in what the one before it freed.
FAULTS = """
import resource, statistics, sys
from vla_jax.host_memory import keep_freed_memory
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

# Megabytes of addresses, and of what is used in pages of 2 MB, with an array of 64 MB; under a limit of
# addresses where one is given, in GB.
HUGE_PAGES = """
import resource, sys
if sys.argv[1:]:
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) * 2**30, resource.RLIM_INFINITY))
from vla_jax.host_memory import keep_freed_memory
assert keep_freed_memory()
import jax.numpy as jnp
array = jnp.ones((4096, 4096)).block_until_ready()
sizes = dict(line.split(":") for line in open("/proc/self/status"))
used = dict(line.split(":") for line in list(open("/proc/self/smaps_rollup"))[1:])
print(int(sizes["VmData"].split()[0]) / 1024, int(used["AnonHugePages"].split()[0]) / 1024)
"""


def printed(script, *arguments):
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=True, capture_output=True, text=True
    )
    return [float(number) for number in run.stdout.split()]


def machine_megabytes():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_steps_use_the_same_pages_again(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    (before,) = printed(FAULTS)
    assert before > 1000
    assert printed(FAULTS, "keep")[0] < before / 20


@pytest.mark.skipif(
    not HUGE_PAGES_GIVEN.exists()
    or "[madvise]" not in HUGE_PAGES_GIVEN.read_text()
    or host_memory._addresses_are_counted(),
    reason="Linux that gives pages of 2 MB to those who ask and no others, and takes no count of addresses",
)
def test_an_array_lies_in_huge_pages_unless_addresses_are_limited(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    addresses, in_huge_pages = printed(HUGE_PAGES)
    assert in_huge_pages > 60
    limited, in_huge_pages = printed(HUGE_PAGES, "1024")
    assert addresses - limited > machine_megabytes() / 2
    assert in_huge_pages < 60


@pytest.mark.parametrize("platforms", ["tpu", "cuda,cpu"])
def test_a_host_of_accelerators_is_left_as_it_is(monkeypatch, platforms):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    assert not host_memory.keep_freed_memory()


def test_another_c_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(host_memory.platform, "libc_ver", lambda: ("", ""))
    assert not host_memory.keep_freed_memory()
