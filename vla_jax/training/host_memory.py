"""The host's memory where it is also the device's: on a CPU."""

import ctypes
import os
import platform
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed for what is asked for next, and says whether it does.

    XLA asks for the intermediate results of a step in one piece and frees it at the end. glibc gets pieces
    that large from the kernel and gives them back, so that every step touches gigabytes of pages for the
    first time: a seventh of its time (docs/engine.md). What it costs is that the process never shrinks.

    To be called before JAX is first used, since threads that exist by then keep areas of their own. Nothing
    is changed where there may be an accelerator, or where the C library is not glibc.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or _may_have_accelerator():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        mallopt(option, value) == 1
        for option, value in ((_M_MMAP_MAX, 0), (_M_ARENA_MAX, 1), (_M_TRIM_THRESHOLD, -1))
    )


def most_held_bytes() -> int:
    """The most memory that this process has held; 0 where nothing tells."""
    if sys.platform == "win32":
        return 0
    import resource

    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _may_have_accelerator() -> bool:
    """Whether JAX could find one, as far as that shows without asking it."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms != "cpu"
    return bool(entry_points(group="jax_plugins")) or find_spec("libtpu") is not None
