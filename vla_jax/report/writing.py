"""What every page shares: templates, pictures inside the page, files that appear whole or not at all."""

import base64
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Photographs are shrunk to this before they go into the page; a gallery of full-size ones would weigh 20 MB.
_LONGEST_SIDE = 384

# Below this an image is a drawing of the built-in world, and its pixels should be seen as such.
_CRISP_BELOW = 160


def render(template: str, filters: Mapping[str, Callable[..., str]] | None = None, **values: Any) -> str:
    """A page of HTML; everything in it is escaped.

    Args:
      template: name of its file beside this one.
      filters: what it calls on values.
      values: what it shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= dict(filters or {})
    return environment.get_template(template).render(**values)


def picture(image: UInt8[np.ndarray, "y x 3"]) -> dict[str, Any]:
    """The image as a PNG data URL, and whether its pixels should stay sharp when it is enlarged.

    Raises:
      ValueError: where it is not uint8 RGB.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"report: an image is uint8 [y x 3], not {image.dtype} {list(image.shape)}")
    picture = Image.fromarray(image)
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"url": f"data:image/png;base64,{data}", "crisp": max(picture.size) < _CRISP_BELOW}


def write_whole(path: Path, text: str) -> None:
    """Writes a text file that appears whole or not at all; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # A tokenizer can decode to half a surrogate pair, which UTF-8 cannot hold: show its code instead.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
