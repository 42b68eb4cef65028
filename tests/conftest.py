"""How tests compile: programs are shared, and optimised only where they are compared with another framework.

Most of the suite's time is XLA compiling small programs that run once. Without LLVM's costly passes it takes
about half as long; the programs are the same, and so are the commands that tests start in processes of their
own. Parity with PyTorch is proven on what users run.

A program on the CPU also holds memory maps until JAX forgets it, and Linux gives a process 65,530 of them
(vm.max_map_count): half of the suite in one process comes so near that XLA, refused one, ends it with a
segmentation fault. So between two files, where many are held, JAX forgets its programs.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# What a shell starts in the background ignores Ctrl-C, which the tests of Ctrl-C cannot do with.
signal.signal(signal.SIGINT, signal.default_int_handler)
MAPS = Path("/proc/self/maps")
MANY_MAPS = 30_000
LESS = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the test's fixtures, which compile too."""
    # After the environment is set, which JAX reads when it is imported.
    import jax

    jax.config.update("jax_disable_most_optimizations", LESS and "parity" not in item.path.parts)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the file's last fixtures, which may hold programs."""
    if nextitem is not None and nextitem.path == item.path or not MAPS.exists():
        return
    with MAPS.open("rb") as maps:
        held = sum(1 for _ in maps)
    if held > MANY_MAPS:
        import jax

        jax.clear_caches()


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Names of the functions that are compiled while the test runs, in order, as JAX itself reports them.

    One that the persistent cache spares XLA is reported all the same.
    """
    import jax

    names: list[str] = []

    def heard(event: str, _: float, *, fun_name: str = "", **others: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(heard)
    yield names
    jax.monitoring.unregister_event_duration_listener(heard)
