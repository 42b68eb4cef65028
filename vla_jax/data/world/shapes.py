"""Polygons in the unit square (x to the right, y down): what the figures are drawn with."""

from math import cos, hypot, pi, radians, sin

Point = tuple[float, float]
Polygon = tuple[Point, ...]


def polygon(*points: Point) -> Polygon:
    """The polygon itself, for symmetry with the other shapes."""
    return points


def box(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    """An upright rectangle."""
    return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def arc(cx: float, cy: float, rx: float, ry: float, start: int, stop: int) -> Polygon:
    """Points on an ellipse from angle `start` to `stop` in degrees; 0 is right, 90 is down."""
    steps = max(2, int(abs(stop - start) / 7.5))
    angles = [radians(start + (stop - start) * i / steps) for i in range(steps + 1)]
    return tuple((cx + rx * cos(angle), cy + ry * sin(angle)) for angle in angles)


def ellipse(cx: float, cy: float, rx: float, ry: float) -> Polygon:
    """A full ellipse."""
    return arc(cx, cy, rx, ry, 0, 360)


def disc(cx: float, cy: float, radius: float) -> Polygon:
    """A full circle."""
    return ellipse(cx, cy, radius, radius)


def ring(
    cx: float, cy: float, rx: float, ry: float, width: float, start: int = 0, stop: int = 360
) -> Polygon:
    """A band of `width` inside an ellipse, from angle `start` to `stop`."""
    outer = arc(cx, cy, rx, ry, start, stop)
    return outer + arc(cx, cy, rx - width, ry - width, stop, start)


def stroke(start: Point, stop: Point, width: float) -> Polygon:
    """A straight line of some width."""
    (x0, y0), (x1, y1) = start, stop
    scale = width / 2 / hypot(x1 - x0, y1 - y0)
    dx, dy = -(y1 - y0) * scale, (x1 - x0) * scale
    return ((x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy))


def turned(shape: Polygon, degrees: int) -> Polygon:
    """The shape turned clockwise about the middle of the unit square."""
    c, s = cos(degrees * pi / 180), sin(degrees * pi / 180)
    return tuple((0.5 + c * (x - 0.5) - s * (y - 0.5), 0.5 + s * (x - 0.5) + c * (y - 0.5)) for x, y in shape)
