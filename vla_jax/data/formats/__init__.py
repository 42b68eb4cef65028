"""What the fields of published data sets mean: one file a layout, from a row as published to our records.

Each file has a function `records(row, image)`, which reads one row and opens no image, and its `FORMAT`.
`fields.py` has what they share. A data set with a layout of its own is one more file here and a line in
`named`.
"""

from vla_jax.data.formats import (
    llava_instruct,
    llava_rlhf,
    mdpo,
    muse,
    packed,
    povid,
    reason_seg,
    rlaif_v,
    rlhf_v,
    trl,
    vlfeedback,
)
from vla_jax.data.formats.fields import Format

_FORMATS = {
    "vlfeedback": vlfeedback.FORMAT,
    "povid": povid.FORMAT,
    "rlhf_v": rlhf_v.FORMAT,
    "rlaif_v": rlaif_v.FORMAT,
    "llava_instruct": llava_instruct.FORMAT,
    "llava_rlhf": llava_rlhf.FORMAT,
    "mdpo": mdpo.FORMAT,
    "trl": trl.FORMAT,
    "reason_seg": reason_seg.FORMAT,
    "muse": muse.FORMAT,
    "packed": packed.FORMAT,
}


def available() -> tuple[str, ...]:
    """The names of all layouts."""
    return tuple(_FORMATS)


def named(name: str) -> Format:
    """A layout by its name.

    Raises:
      ValueError: where there is none.
    """
    if name not in _FORMATS:
        raise ValueError(f"there is no data format {name!r}; choose one of {', '.join(available())}")
    return _FORMATS[name]


__all__ = ["Format", "available", "named"]
