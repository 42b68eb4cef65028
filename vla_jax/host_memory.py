"""The host's memory where it is also the device's: on a CPU."""

import ctypes
import os
import platform
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
# Of Linux.
_MADV_HUGEPAGE = 14
_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed for what is asked for next, and says whether it does.

    XLA asks for the intermediate results of a step in one piece and frees it at the end. glibc gets pieces
    that large from the kernel and gives them back, so that every step touches gigabytes of pages for the
    first time: a seventh of its time (docs/engine.md). What it costs is that the process never shrinks. What
    is kept lies in pages of 2 MB where Linux gives them, another tenth.

    To be called before JAX is first used, since threads that exist by then keep areas of their own. Nothing
    is changed where there may be an accelerator, or where the C library is not glibc.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or _may_have_accelerator():
        return False
    glibc = ctypes.CDLL(None)
    kept = all(
        glibc.mallopt(option, value) == 1
        for option, value in ((_M_MMAP_MAX, 0), (_M_ARENA_MAX, 1), (_M_TRIM_THRESHOLD, -1))
    )
    if kept:
        _grow_into_huge_pages(glibc)
    return kept


def most_held_bytes() -> int:
    """The most memory that this process has held; 0 where nothing tells."""
    if sys.platform == "win32":
        return 0
    import resource

    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _grow_into_huge_pages(glibc: ctypes.CDLL) -> None:
    """Has the heap take its memory from a range for which Linux is asked for pages of 2 MB.

    The range is three quarters of the machine's memory, of which none is used before it is touched.
    """
    if _addresses_are_counted():
        return
    glibc.malloc.argtypes, glibc.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    glibc.free.argtypes = (ctypes.c_void_p,)
    glibc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    page = os.sysconf("SC_PAGE_SIZE")
    size = os.sysconf("SC_PHYS_PAGES") * 3 // 4 * page
    if start := glibc.malloc(size):
        whole = -(-start // page) * page
        glibc.madvise(whole, (start + size - whole) // page * page, _MADV_HUGEPAGE)
        glibc.free(start)  # to the heap, which keeps it


def _addresses_are_counted() -> bool:
    """Whether addresses taken here may be missing elsewhere, used or not: under `ulimit -v`, say."""
    import resource

    limits = (resource.getrlimit(which)[0] for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    try:
        never_overcommits = _OVERCOMMIT.read_text().strip() == "2"
    except OSError:
        never_overcommits = True
    return never_overcommits or any(limit != resource.RLIM_INFINITY for limit in limits)


def _may_have_accelerator() -> bool:
    """Whether JAX could find one, as far as that shows without asking it."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms != "cpu"
    return bool(entry_points(group="jax_plugins")) or find_spec("libtpu") is not None
