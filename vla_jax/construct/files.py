"""Looks at published data sets, and packs them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from vla_jax.data import Record
from vla_jax.data.inspection import inspect
from vla_jax.data.packing import pack
from vla_jax.data.published import Published
from vla_jax.report import write_records
from vla_jax.training.bad_records import ListedReport
from vla_jax.training.workdir import BAD_RECORDS


def show(source: Published, page: Path | None, shown: int) -> None:
    """Prints what is in a data set, and writes a page with some of its records.

    Args:
      source: the records.
      page: the HTML file; None writes none.
      shown: how many records the page shows, evenly spread over the set.
    """
    every = max(1, len(source) // max(shown, 1))
    gallery: list[Record] = []
    seen = 0

    def keep(record: Record) -> None:
        nonlocal seen
        if seen % every == 0 and len(gallery) < shown:
            gallery.append(record)
        seen += 1

    with progress_bar("inspect", len(source)) as progress:
        found = inspect(source, progress, keep)
    for error in found.bad:
        print(error)
    print(found.table())
    if page is not None:
        write_records(page, source.name, found, gallery)
        print(f"page: {page}")


def pack_into(source: Published, to: Path, most_bad: float | None) -> None:
    """Packs a data set into a folder; bad records are left out where they may be, and listed beside it.

    Args:
      source: the records.
      to: the folder; the list is `DIR.bad_records.jsonl`.
      most_bad: the share of all records that may be bad; None leaves none out.

    Raises:
      DataError: at a bad record, or, where they may be left out, at one too many.
      OSError: where the folder exists or cannot be written.
    """
    report = ListedReport(to.with_name(f"{to.name}.{BAD_RECORDS}"))
    report.most_bad = None if most_bad is None else int(most_bad * len(source))
    with progress_bar("pack", len(source)) as progress:
        packed = pack(source, to, None if most_bad is None else report.skipped, progress)
    if report.bad:
        print(f"bad records: {report.path}")
    size = sum(file.stat().st_size for file in to.rglob("*") if file.is_file())
    left_out = f"{len(report.bad):,} bad ones left out, {source.empty_rows:,} rows hold none"
    print(f"{to}: {packed:,} records, {left_out}, {size / 1e6:.1f} MB")


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar of records: what to call with each new number of them."""
    every = 0.1 if sys.stderr.isatty() else 10
    with tqdm(desc=what, total=total, unit="record", dynamic_ncols=True, mininterval=every) as bar:
        yield bar.update
