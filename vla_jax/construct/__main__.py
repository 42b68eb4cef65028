"""Makes data sets from data sets.

python -m vla_jax.construct inspect --source=rlhf_v --path=RLHF-V-Dataset.parquet --to=rlhf_v.html
python -m vla_jax.construct pack --source=povid --path=POVID.json --images=coco/train2014 --to=povid
python -m vla_jax.construct key_objects --config=configs/world_lpoi.py --model=DIR --to=verified
python -m vla_jax.construct RECIPE --config=configs/….py --to=made    # its responses, made by a model
python -m vla_jax.train --config=… --config.data.source=packed --config.data.path=povid
"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from vla_jax.command_line import parse_flags
from vla_jax.construct.files import pack_into, show
from vla_jax.construct.key_objects import LEAVE_OUT, WHEN_NONE, pack_verified
from vla_jax.construct.responses import construct
from vla_jax.data import formats
from vla_jax.data.formats.preference_folder import BOX_FORMATS, format_with
from vla_jax.data.published import Published
from vla_jax.host_memory import keep_freed_memory
from vla_jax.interop import load_model
from vla_jax.recipes import constructors

# Command -> the flags that it cannot do without.
_COMMANDS = {
    "inspect": ("source", "path"),
    "pack": ("source", "path", "to"),
    "key_objects": ("config", "model", "to"),
    **dict.fromkeys(constructors(), ("config", "to")),
}
# Command -> the other flags that it reads.
_READS = {
    "inspect": ("images", "box_format", "to", "records"),
    "pack": ("images", "box_format", "on_bad_record", "max_bad_fraction"),
    "key_objects": ("when_none",),
    **dict.fromkeys(constructors(), ("as_rejected",)),
}
_SOURCES = (*formats.available(), "preference_folder")


def main(argv: list[str]) -> None:
    """Command line."""
    command = argv[1] if len(argv) == 2 else ""
    if command not in _COMMANDS:
        sys.exit(f"error: say what to do: python -m vla_jax.construct {'|'.join(_COMMANDS)} --…")
    for name in _COMMANDS[command]:
        if not flags.FLAGS[name].value:
            remedy = "; it says where to pack, and must not exist" if name == "to" else ""
            sys.exit(f"error: {command} needs --{name}{remedy}")
    for name in _idle_flags(command):
        sys.exit(f"error: {command} does not read --{name}; leave it out")
    # TFDS tells much of what it does; what a user must know is said here.
    logging.set_verbosity(logging.ERROR)
    keep_freed_memory()
    to = Path(_TO.value) if _TO.value else None
    try:
        match command:
            case "inspect":
                show(_published(), to, _RECORDS.value)
            case "pack":
                assert to is not None
                skips = _ON_BAD_RECORD.value == "skip"
                pack_into(_published(), to, _MAX_BAD_FRACTION.value if skips else None)
            case "key_objects":
                assert to is not None
                print(
                    pack_verified(_CONFIG.value, load_model(Path(_MODEL.value or "")), to, _WHEN_NONE.value)
                )
            case recipe:
                assert to is not None
                print(construct(_CONFIG.value, recipe, to, _AS_REJECTED.value))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: stopped; nothing was packed, and the same command goes on")


def _idle_flags(command: str) -> list[str]:
    """The flags that were given and that only other commands read."""
    reads = {name: {*needs, *_READS[name]} for name, needs in _COMMANDS.items()}
    return [name for name in set().union(*reads.values()) - reads[command] if flags.FLAGS[name].present]


def _published() -> Published:
    """The data set that --source and --path name."""
    own = _SOURCE.value == "preference_folder"
    layout = format_with(_BOX_FORMAT.value) if own else formats.named(_SOURCE.value or "")
    return Published(_PATH.value or "", layout, _IMAGES.value)


if __name__ == "__main__":
    _SOURCE = flags.DEFINE_enum("source", None, _SOURCES, "Layout of the file.")
    _PATH = flags.DEFINE_string("path", None, "The file or folder, or tfds:NAME[:VERSION][:SPLIT].")
    _IMAGES = flags.DEFINE_string("images", "", "Where image paths start; by default where the file lies.")
    _BOX_FORMAT = flags.DEFINE_enum("box_format", BOX_FORMATS[0], BOX_FORMATS, "preference_folder: of boxes.")
    _TO = flags.DEFINE_string("to", "", "The folder to write. inspect: a page to write.")
    _ON_BAD_RECORD = flags.DEFINE_enum("on_bad_record", "error", ["error", "skip"], "pack: what to do.")
    _MAX_BAD_FRACTION = flags.DEFINE_float(
        "max_bad_fraction", 0.01, "pack: share of the records that may be left out.", 0, 1
    )
    _RECORDS = flags.DEFINE_integer("records", 12, "inspect: how many the page shows.", lower_bound=0)
    _CONFIG = config_flags.DEFINE_config_file("config", None, "Of those that ask a model: data and method.")
    _MODEL = flags.DEFINE_string("model", None, "key_objects: who verifies: a model folder or a workdir.")
    _WHEN_NONE = flags.DEFINE_enum(
        "when_none",
        LEAVE_OUT,
        WHEN_NONE,
        "key_objects: what becomes of a record none of whose objects passes.",
    )
    _AS_REJECTED = flags.DEFINE_bool("as_rejected", False, "RECIPE: call what is made the rejected one.")
    app.run(main, flags_parser=parse_flags)
