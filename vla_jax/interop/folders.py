"""Folders that appear whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# No room on the device, none left of a quota, or a file larger than allowed.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole_folder(path: Path, needs: int = 0, replace: bool = False) -> Iterator[Path]:
    """A folder to write into, which becomes `path` at the end and is removed if anything goes wrong.

    Args:
      path: what the folder will be called.
      needs: bytes that will be written; too little room is then an error before anything is.
      replace: take the place of a folder that is there.

    Raises:
      OSError: where there is no room; says how much there is.
      FileExistsError: where `path` exists, is no empty folder, and should not be replaced.
    """
    if not replace and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists already; choose another folder or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        free = shutil.disk_usage(path.parent).free
        if needs > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        partial.mkdir()
        yield partial
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        free = shutil.disk_usage(path.parent).free
        needed = f"{needs / 1e9:.1f} GB are needed, " if needs else ""
        raise OSError(
            f"no room for {path}: {needed}{free / 1e9:.1f} GB are free ({error.strerror}); "
            "nothing was left behind"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
