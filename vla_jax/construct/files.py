"""Looks at published data sets, and packs them.

python -m vla_jax.construct inspect --source=rlhf_v --path=RLHF-V-Dataset.parquet --to=rlhf_v.html
python -m vla_jax.construct pack --source=povid --path=POVID.json --images=coco/train2014 --to=povid
python -m vla_jax.train --config=… --config.data.source=packed --config.data.path=povid
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from absl import app, flags, logging
from tqdm import tqdm

from vla_jax.command_line import parse_flags
from vla_jax.data import Record, formats
from vla_jax.data.formats.preference_folder import BOX_FORMATS, format_with
from vla_jax.data.inspection import inspect
from vla_jax.data.packing import pack
from vla_jax.data.published import Published
from vla_jax.report import write_records
from vla_jax.training.bad_records import ListedReport
from vla_jax.training.workdir import BAD_RECORDS

_COMMANDS = ("inspect", "pack")
_SOURCES = (*formats.available(), "preference_folder")


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

    with _progress("inspect", len(source)) as progress:
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
    with _progress("pack", len(source)) as progress:
        packed = pack(source, to, None if most_bad is None else report.skipped, progress)
    if report.bad:
        print(f"bad records: {report.path}")
    size = sum(file.stat().st_size for file in to.rglob("*") if file.is_file())
    left_out = f"{len(report.bad):,} bad ones left out, {source.empty_rows:,} rows hold none"
    print(f"{to}: {packed:,} records, {left_out}, {size / 1e6:.1f} MB")


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    every = 0.1 if sys.stderr.isatty() else 10
    with tqdm(desc=what, total=total, unit="record", dynamic_ncols=True, mininterval=every) as bar:
        yield bar.update


def main(argv: list[str]) -> None:
    """Command line."""
    command = argv[1] if len(argv) == 2 else None
    if command not in _COMMANDS:
        sys.exit(
            f"error: say what to do: python -m vla_jax.construct {'|'.join(_COMMANDS)} --source=… --path=…"
        )
    # TFDS tells much of what it does; what a user must know is said here.
    logging.set_verbosity(logging.ERROR)
    if command == "pack" and not _TO.value:
        sys.exit("error: --to says where to pack; it must not exist")
    try:
        layout = (
            format_with(_BOX_FORMAT.value)
            if _SOURCE.value == "preference_folder"
            else formats.named(_SOURCE.value or "")
        )
        source = Published(_PATH.value or "", layout, _IMAGES.value)
        if command == "pack":
            skips = _ON_BAD_RECORD.value == "skip"
            pack_into(source, Path(_TO.value), _MAX_BAD_FRACTION.value if skips else None)
        else:
            show(source, Path(_TO.value) if _TO.value else None, _RECORDS.value)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: stopped; nothing was written")


if __name__ == "__main__":
    _SOURCE = flags.DEFINE_enum("source", None, _SOURCES, "Layout of the file.")
    _PATH = flags.DEFINE_string("path", None, "The file or folder, or tfds:NAME[:VERSION][:SPLIT].")
    _IMAGES = flags.DEFINE_string("images", "", "Where image paths start; by default where the file lies.")
    _BOX_FORMAT = flags.DEFINE_enum("box_format", BOX_FORMATS[0], BOX_FORMATS, "preference_folder: of boxes.")
    _TO = flags.DEFINE_string("to", "", "pack: the folder to write. inspect: a page to write.")
    _ON_BAD_RECORD = flags.DEFINE_enum("on_bad_record", "error", ["error", "skip"], "pack: what to do.")
    _MAX_BAD_FRACTION = flags.DEFINE_float(
        "max_bad_fraction", 0.01, "pack: share of the records that may be left out.", 0, 1
    )
    _RECORDS = flags.DEFINE_integer("records", 12, "inspect: how many the page shows.", lower_bound=0)
    flags.mark_flags_as_required(["source", "path"])
    app.run(main, flags_parser=parse_flags)
