"""How each category looks: layers of painted polygons, the first at the back.

A figure fills most of the unit square and keeps about 0.05 from its edges, where the outline goes. Its larger
part has the object's colour; details of fixed colour make it recognisable at twenty pixels.
"""

from typing import NamedTuple

from vla_jax.data.world.categories import RGB
from vla_jax.data.world.shapes import (
    Polygon,
    arc,
    box,
    disc,
    ellipse,
    polygon,
    ring,
    stroke,
    turned,
)

BROWN: RGB = (122, 78, 42)
DARK: RGB = (38, 36, 40)
GLASS: RGB = (176, 218, 240)
GREY: RGB = (150, 150, 156)
LEAF: RGB = (62, 140, 52)
PAPER: RGB = (248, 246, 236)
YOLK: RGB = (248, 204, 48)


class Tint(NamedTuple):
    """The object's own colour, darkened (`shade` below 1) or mixed with white (`shade` from 1 to 2)."""

    shade: float = 1.0


class Layer(NamedTuple):
    """One painted polygon of a figure."""

    paint: Tint | RGB
    shape: Polygon


Figure = tuple[Layer, ...]

BODY, SHADE, LIGHT = Tint(), Tint(0.6), Tint(1.5)


def _tilted(figure: Figure, degrees: int) -> Figure:
    return tuple(Layer(paint, turned(shape, degrees)) for paint, shape in figure)


FIGURES: dict[str, Figure] = {
    "cup": (
        Layer(BODY, ring(0.68, 0.54, 0.26, 0.24, 0.1)),
        Layer(
            BODY, polygon((0.08, 0.2), (0.72, 0.2), (0.66, 0.86), (0.56, 0.92), (0.24, 0.92), (0.14, 0.86))
        ),
        Layer(SHADE, ellipse(0.4, 0.2, 0.32, 0.1)),
        Layer(PAPER, ellipse(0.4, 0.22, 0.24, 0.055)),
    ),
    "bottle": (
        Layer(BODY, box(0.42, 0.1, 0.58, 0.4)),
        Layer(BODY, polygon((0.42, 0.26), (0.58, 0.26), (0.7, 0.44), (0.7, 0.94), (0.3, 0.94), (0.3, 0.44))),
        Layer(BROWN, box(0.4, 0.05, 0.6, 0.16)),
        Layer(PAPER, box(0.3, 0.56, 0.7, 0.76)),
    ),
    "house": (
        Layer(BODY, box(0.22, 0.44, 0.78, 0.94)),
        Layer(BROWN, box(0.68, 0.12, 0.8, 0.4)),
        Layer(SHADE, polygon((0.04, 0.48), (0.5, 0.06), (0.96, 0.48))),
        Layer(BROWN, box(0.54, 0.62, 0.72, 0.94)),
        Layer(GLASS, box(0.27, 0.58, 0.45, 0.76)),
    ),
    "tree": (
        Layer(BROWN, polygon((0.44, 0.5), (0.56, 0.5), (0.6, 0.95), (0.4, 0.95))),
        Layer(BODY, disc(0.34, 0.52, 0.18)),
        Layer(BODY, disc(0.66, 0.52, 0.18)),
        Layer(BODY, disc(0.38, 0.34, 0.18)),
        Layer(BODY, disc(0.62, 0.34, 0.18)),
        Layer(BODY, disc(0.5, 0.22, 0.17)),
        Layer(BODY, disc(0.5, 0.5, 0.2)),
        Layer(SHADE, arc(0.38, 0.3, 0.12, 0.1, 20, 160)),
        Layer(SHADE, arc(0.64, 0.48, 0.13, 0.11, 20, 160)),
        Layer(SHADE, arc(0.36, 0.54, 0.13, 0.11, 20, 160)),
    ),
    "cat": (
        Layer(BODY, ring(0.7, 0.66, 0.25, 0.26, 0.1, -100, 120)),
        Layer(BODY, ellipse(0.48, 0.74, 0.25, 0.21)),
        Layer(BODY, box(0.26, 0.76, 0.7, 0.95)),
        Layer(BODY, polygon((0.12, 0.05), (0.36, 0.2), (0.14, 0.38))),
        Layer(BODY, polygon((0.64, 0.05), (0.4, 0.2), (0.62, 0.38))),
        Layer(BODY, ellipse(0.38, 0.36, 0.27, 0.22)),
        Layer(PAPER, disc(0.28, 0.33, 0.07)),
        Layer(PAPER, disc(0.48, 0.33, 0.07)),
        Layer(DARK, disc(0.28, 0.33, 0.04)),
        Layer(DARK, disc(0.48, 0.33, 0.04)),
        Layer((236, 140, 150), polygon((0.33, 0.43), (0.43, 0.43), (0.38, 0.5))),
        Layer(SHADE, stroke((0.48, 0.74), (0.48, 0.95), 0.035)),
    ),
    "chair": (
        Layer(BODY, polygon((0.12, 0.06), (0.26, 0.06), (0.34, 0.56), (0.2, 0.56))),
        Layer(BROWN, box(0.2, 0.6, 0.3, 0.95)),
        Layer(BROWN, box(0.76, 0.6, 0.86, 0.95)),
        Layer(BODY, box(0.18, 0.5, 0.9, 0.66)),
    ),
    "car": (
        Layer(BODY, polygon((0.22, 0.5), (0.34, 0.26), (0.68, 0.26), (0.82, 0.5))),
        Layer(GLASS, polygon((0.3, 0.49), (0.38, 0.33), (0.49, 0.33), (0.49, 0.49))),
        Layer(GLASS, polygon((0.55, 0.33), (0.65, 0.33), (0.74, 0.49), (0.55, 0.49))),
        Layer(
            BODY, polygon((0.05, 0.56), (0.12, 0.48), (0.88, 0.5), (0.95, 0.58), (0.95, 0.74), (0.05, 0.74))
        ),
        Layer(DARK, disc(0.26, 0.74, 0.13)),
        Layer(DARK, disc(0.74, 0.74, 0.13)),
        Layer(GREY, disc(0.26, 0.74, 0.06)),
        Layer(GREY, disc(0.74, 0.74, 0.06)),
    ),
    "tent": (
        Layer(BROWN, stroke((0.42, 0.06), (0.56, 0.24), 0.05)),
        Layer(BROWN, stroke((0.58, 0.06), (0.44, 0.24), 0.05)),
        Layer(BODY, polygon((0.5, 0.14), (0.96, 0.9), (0.04, 0.9))),
        Layer(DARK, polygon((0.5, 0.34), (0.68, 0.9), (0.32, 0.9))),
        Layer(LIGHT, polygon((0.5, 0.34), (0.32, 0.9), (0.22, 0.9))),
    ),
    "book": _tilted(
        (
            Layer(SHADE, box(0.2, 0.1, 0.82, 0.9)),
            Layer(PAPER, box(0.26, 0.78, 0.8, 0.88)),
            Layer(BODY, box(0.2, 0.1, 0.82, 0.78)),
            Layer(SHADE, box(0.2, 0.1, 0.3, 0.9)),
            Layer(PAPER, box(0.42, 0.24, 0.7, 0.32)),
            Layer(PAPER, box(0.42, 0.4, 0.7, 0.46)),
        ),
        12,
    ),
    "lamp": (
        Layer(GREY, box(0.45, 0.5, 0.55, 0.88)),
        Layer(GREY, arc(0.5, 0.95, 0.26, 0.14, 180, 360)),
        Layer(BODY, polygon((0.34, 0.06), (0.66, 0.06), (0.9, 0.56), (0.1, 0.56))),
        Layer(YOLK, ellipse(0.5, 0.57, 0.2, 0.08)),
    ),
    "boat": (
        Layer(BROWN, box(0.45, 0.05, 0.52, 0.7)),
        Layer(PAPER, polygon((0.54, 0.08), (0.92, 0.6), (0.54, 0.6))),
        Layer(PAPER, polygon((0.42, 0.2), (0.42, 0.6), (0.16, 0.6))),
        Layer(BODY, polygon((0.04, 0.65), (0.96, 0.65), (0.78, 0.93), (0.22, 0.93))),
    ),
    "fish": (
        Layer(BODY, polygon((0.62, 0.5), (0.95, 0.24), (0.88, 0.5), (0.95, 0.76))),
        Layer(SHADE, polygon((0.3, 0.32), (0.48, 0.14), (0.62, 0.36))),
        Layer(BODY, ellipse(0.4, 0.5, 0.35, 0.24)),
        Layer(SHADE, ring(0.22, 0.5, 0.16, 0.2, 0.035, -60, 60)),
        Layer(PAPER, disc(0.2, 0.45, 0.075)),
        Layer(DARK, disc(0.2, 0.45, 0.04)),
    ),
    "apple": (
        Layer(BROWN, stroke((0.5, 0.32), (0.56, 0.06), 0.07)),
        Layer(LEAF, turned(ellipse(0.57, 0.22, 0.18, 0.08), -30)),
        Layer(BODY, ellipse(0.36, 0.56, 0.25, 0.29)),
        Layer(BODY, ellipse(0.64, 0.56, 0.25, 0.29)),
        Layer(BODY, ellipse(0.4, 0.7, 0.22, 0.24)),
        Layer(BODY, ellipse(0.6, 0.7, 0.22, 0.24)),
        Layer(LIGHT, ellipse(0.28, 0.48, 0.06, 0.1)),
    ),
    "banana": (
        Layer(BODY, arc(0.45, 0.34, 0.46, 0.54, -20, 148) + arc(0.4, 0.22, 0.36, 0.42, 140, 0)),
        Layer(BROWN, polygon((0.74, 0.06), (0.88, 0.06), (0.91, 0.24), (0.75, 0.24))),
        Layer(BROWN, disc(0.1, 0.58, 0.05)),
    ),
    "flower": (
        Layer(LEAF, box(0.46, 0.5, 0.54, 0.95)),
        Layer(LEAF, polygon((0.5, 0.9), (0.76, 0.7), (0.84, 0.78), (0.7, 0.9))),
        *(Layer(BODY, disc(x, y, 0.145)) for x, y in arc(0.5, 0.36, 0.2, 0.2, -90, 270)[::8][:6]),
        Layer(YOLK, disc(0.5, 0.36, 0.12)),
    ),
    "mushroom": (
        Layer(PAPER, polygon((0.36, 0.54), (0.64, 0.54), (0.72, 0.94), (0.28, 0.94))),
        Layer(BODY, arc(0.5, 0.62, 0.45, 0.48, 180, 360)),
        Layer(PAPER, disc(0.5, 0.3, 0.09)),
        Layer(PAPER, disc(0.25, 0.48, 0.08)),
        Layer(PAPER, disc(0.75, 0.48, 0.08)),
    ),
    "hat": (
        Layer(BODY, ellipse(0.5, 0.76, 0.46, 0.14)),
        Layer(BODY, polygon((0.24, 0.2), (0.76, 0.2), (0.72, 0.74), (0.28, 0.74))),
        Layer(GREY, polygon((0.26, 0.56), (0.74, 0.56), (0.73, 0.7), (0.27, 0.7))),
    ),
    "umbrella": _tilted(
        (
            Layer(BROWN, box(0.47, 0.04, 0.53, 0.86)),
            Layer(BROWN, ring(0.59, 0.84, 0.12, 0.12, 0.06, 0, 180)),
            Layer(BODY, arc(0.5, 0.52, 0.47, 0.42, 180, 360)),
            Layer(SHADE, arc(0.5, 0.52, 0.16, 0.42, 180, 360)),
        ),
        24,
    ),
    "clock": (
        Layer(GREY, stroke((0.3, 0.8), (0.2, 0.95), 0.09)),
        Layer(GREY, stroke((0.7, 0.8), (0.8, 0.95), 0.09)),
        Layer(BODY, disc(0.24, 0.18, 0.13)),
        Layer(BODY, disc(0.76, 0.18, 0.13)),
        Layer(BODY, disc(0.5, 0.54, 0.4)),
        Layer(PAPER, disc(0.5, 0.54, 0.26)),
        Layer(DARK, stroke((0.5, 0.56), (0.5, 0.34), 0.06)),
        Layer(DARK, stroke((0.48, 0.54), (0.66, 0.6), 0.06)),
    ),
    "key": _tilted(
        (
            Layer(BODY, ring(0.19, 0.46, 0.21, 0.21, 0.1)),
            Layer(BODY, box(0.36, 0.39, 0.98, 0.53)),
            Layer(BODY, box(0.85, 0.46, 0.98, 0.7)),
            Layer(BODY, box(0.64, 0.46, 0.76, 0.67)),
        ),
        -42,
    ),
}
