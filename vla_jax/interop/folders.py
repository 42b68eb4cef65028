"""Folders that appear whole or not at all."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    if not replace:
        refuse_existing(path)
    # Named before anything is made, so that whenever it is stopped all of it is found again.
    made = [folder for folder in path.absolute().parents if not folder.exists()]
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        partial.mkdir(parents=True)
        if needs > shutil.disk_usage(path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield partial
        if replace and path.exists():
            shutil.rmtree(path)
        # Takes the place of an empty folder, and of no other.
        os.replace(partial, path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(f"{path} has come to be meanwhile; choose another folder") from None
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
        if not path.exists():
            # Unless someone else has put something there.
            with suppress(OSError):
                for folder in made:
                    folder.rmdir()


def refuse_existing(path: Path) -> None:
    """Finds that `path` is free, or an empty folder.

    Raises:
      FileExistsError: where it is not.
    """
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise FileExistsError(f"{path} exists already; choose another folder, or remove it")
