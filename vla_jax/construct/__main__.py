"""Makes data sets from data sets.

python -m vla_jax.construct inspect --source=rlhf_v --path=RLHF-V-Dataset.parquet --to=rlhf_v.html
python -m vla_jax.construct pack --source=povid --path=POVID.json --images=coco/train2014 --to=povid
python -m vla_jax.train --config=… --config.data.source=packed --config.data.path=povid
"""

import sys
from pathlib import Path

from absl import app, flags, logging

from vla_jax.command_line import parse_flags
from vla_jax.construct.files import pack_into, show
from vla_jax.data import formats
from vla_jax.data.formats.preference_folder import BOX_FORMATS, format_with
from vla_jax.data.published import Published

_COMMANDS = ("inspect", "pack")
_SOURCES = (*formats.available(), "preference_folder")


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
