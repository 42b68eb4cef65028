"""What a checkpoint's `preprocessor_config.json` says, field by field, with each class's defaults.

Also an `image_processor` section of a `processor_config.json`, where transformers 5 keeps the same fields.
"""

import math
from collections.abc import Mapping
from typing import Any

from PIL import Image

from vla_jax.data.anyres import Size

Triple = tuple[float, float, float]

_CLIP: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "default_to_square": False,
    "resample": Image.Resampling.BICUBIC,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_pad": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
_SIGLIP = {"size": {"height": 224, "width": 224}, "do_center_crop": False, "crop_size": None}
_SIGLIP |= {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
# What each class does where a checkpoint says nothing.
_DEFAULTS = {
    "CLIPImageProcessor": _CLIP,
    "BitImageProcessor": _CLIP,
    "SiglipImageProcessor": _CLIP | _SIGLIP,
    "LlavaImageProcessor": _CLIP,
    "LlavaNextImageProcessor": _CLIP | {"do_pad": True, "image_grid_pinpoints": _PINPOINTS},
}


def pixel_statistics(config: Mapping[str, Any]) -> tuple[Triple, Triple]:
    """(mean, standard deviation) of RGB in [0, 1] that a checkpoint normalises by; 0 and 1 where it does not.

    Args:
      config: see `ImageProcessor.from_dict`.
    """
    _, fields = read_fields(config)
    if not fields["do_normalize"]:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return read_triple(fields, "image_mean"), read_triple(fields, "image_std")


def read_fields(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The processor's class, without the suffix that names a backend, and its fields with their defaults."""
    config = config.get("image_processor") or config
    old = str(config.get("feature_extractor_type")).replace("FeatureExtractor", "ImageProcessor")
    kind = str(config.get("image_processor_type") or old).removesuffix("Fast").removesuffix("Pil")
    if kind not in _DEFAULTS:
        kinds = f"{', '.join(_DEFAULTS)}, also with Fast or Pil"
        raise unsupported({"image_processor_type": kind}, "image_processor_type", kinds)
    fields = _DEFAULTS[kind] | {name: value for name, value in config.items() if value is not None}
    for name in ("do_resize", "do_center_crop", "do_pad", "do_normalize", "default_to_square"):
        if not isinstance(fields[name], bool):
            raise unsupported(fields, name, "true and false")
    for name, only in (("do_rescale", True), ("use_square_size", False)):
        if fields.get(name, only) is not only:
            raise unsupported(fields, name, str(only).lower())
    factor = fields["rescale_factor"]
    if not _is_number(factor) or not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise unsupported(fields, "rescale_factor", f"1/255, {1 / 255}")
    if fields["do_pad"] and "pad_size" in fields and "Llava" not in kind:
        raise unsupported(fields, "pad_size", f"null, for a {kind}")
    return kind, fields


def read_size(fields: Mapping[str, Any]) -> int | Size:
    """The shortest edge, or (height, width)."""
    match fields["size"]:
        case {"shortest_edge": side, **others} if not any(others.values()) and _are_sides(side):
            return side
        case side if _are_sides(side) and not fields["default_to_square"]:
            return side
    return read_pair(fields, "size", " and {shortest_edge}")


def read_pair(fields: Mapping[str, Any], name: str, more: str = "") -> Size:
    """(height, width) of a field, however it says them; `more` is what else an error names as supported."""
    match fields[name]:
        case {"height": height, "width": width, **others} if not any(others.values()):
            pair = (height, width)
        case [height, width]:
            pair = (height, width)
        case side:
            pair = (side, side)
    if not _are_sides(*pair):
        raise unsupported(
            fields, name, "positive whole numbers: one, [height, width], {height, width}" + more
        )
    return pair


def read_pinpoints(fields: Mapping[str, Any]) -> tuple[Size, ...]:
    """The resolutions of AnyRes."""
    match fields["image_grid_pinpoints"]:
        case [_, *_] as pairs if all(isinstance(pair, list | tuple) for pair in pairs):
            return tuple(read_pair({"image_grid_pinpoints": pair}, "image_grid_pinpoints") for pair in pairs)
    raise unsupported(fields, "image_grid_pinpoints", "a list of [height, width]")


def _are_sides(*values: Any) -> bool:
    return all(type(value) is int and value > 0 for value in values)


def read_resample(fields: Mapping[str, Any]) -> int:
    """The filter, one of PIL's."""
    filters = {int(each): each.name for each in Image.Resampling}
    if fields["resample"] not in list(filters):
        raise unsupported(fields, "resample", str(filters))
    return int(fields["resample"])


def read_triple(fields: Mapping[str, Any], name: str) -> Triple:
    """A number for each of red, green and blue; one number stands for three."""
    value = fields[name]
    match [value] * 3 if _is_number(value) else value:
        case [red, green, blue] if all(map(_is_number, (red, green, blue))):
            return float(red), float(green), float(blue)
    raise unsupported(fields, name, "one number, or [red, green, blue]")


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


def unsupported(fields: Mapping[str, Any], name: str, supported: str) -> ValueError:
    """What is raised at a field that asks for something else."""
    return ValueError(f"the image processor's {name} is {fields.get(name)!r}; supported: {supported}")
