"""Progressive masking of an object and the outline that points at it (LPOI, section 3.2).

What a view changes is, in every row of the image, a span of it: (first, length) in pixels. Spans are few
and cheap, so the one pass over the pixels only compares a position with them and writes bytes.
"""

from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Integer, UInt8

_RED = (255, 0, 0)
_CHANNELS = 3

Spans = tuple[Integer[Array, "*v y"], Integer[Array, "*v y"]]


@partial(jax.jit, static_argnames=("num_views", "outline"))
def progressive_masks(
    image: UInt8[Array, "y x 3"],
    box: Float[Array, "4"],
    num_views: int,
    *,
    outline: bool = True,
    outline_width: float = 1.0,
) -> UInt8[Array, "v y x 3"]:
    """A list of views in which more and more of the object in `box` is black.

    View i of 0..L-1 masks the share i / (L-1) of the box, growing from the side of the box that is nearest to
    the image border. View 0 is the image itself; view L-1 masks the whole box.

    Args:
      image: uint8 RGB.
      box: the object, in pixels; rounded to whole ones and clipped to the image.
      num_views: L, at least 2.
      outline: draw a red ellipse inscribed in the masked rectangle.
      outline_width: its line width in pixels.

    Raises:
      ValueError: where `num_views` is below 2.

    Source: LPOI, section 3.2 and Figure 2.
    """
    if num_views < 2:
        raise ValueError(f"{num_views=}: a list needs at least 2 views")
    height, width, _ = image.shape
    shares = [i / (num_views - 1) for i in range(num_views)]
    rectangles = jnp.stack([masked_rectangle(box, share, height, width) for share in shares])
    black = _within(jax.vmap(partial(_rectangle_spans, height=height))(rectangles), width)
    views = jnp.where(black, jnp.uint8(0), rearrange(image, "y x c -> y (x c)"))
    if outline:
        line = jax.vmap(partial(_on_ellipse, outline_width, height, width))(rectangles)
        views = jnp.where(line, _red_bytes(width), views)
    return rearrange(views, "v y (x c) -> v y x c", c=_CHANNELS)


def masked_rectangle(box: Float[Array, "4"], share: float, height: int, width: int) -> Float[Array, "4"]:
    """The part of `box` that is masked: whole pixels, growing from the side nearest the image border.

    Ties go to the left side, then top, right, bottom.
    """
    limits = jnp.array([width, height, width, height], jnp.float32)
    x0, y0, x1, y1 = jnp.clip(jnp.round(box.astype(jnp.float32)), 0, limits)
    side = jnp.argmin(jnp.stack([x0, y0, width - x1, height - y1]))
    columns, rows = jnp.round(share * (x1 - x0)), jnp.round(share * (y1 - y0))
    return jnp.stack(
        [
            jnp.where(side == 2, x1 - columns, x0),
            jnp.where(side == 3, y1 - rows, y0),
            jnp.where(side == 0, x0 + columns, x1),
            jnp.where(side == 1, y0 + rows, y1),
        ]
    )


@jax.jit
def ellipse_outline(
    image: UInt8[Array, "y x 3"], rectangle: Float[Array, "4"], width: float = 1.0
) -> UInt8[Array, "y x 3"]:
    """A red ellipse inscribed in `rectangle`, `width` pixels wide; nothing where the rectangle is empty.

    A pixel is on the line when its centre is inside the ellipse but not inside the one whose semi-axes are
    `width` shorter. `rectangle` is in whole pixels and lies in the image.
    """
    rows, columns, _ = image.shape
    line = _on_ellipse(width, rows, columns, rectangle)
    drawn = jnp.where(line, _red_bytes(columns), rearrange(image, "y x c -> y (x c)"))
    return rearrange(drawn, "y (x c) -> y x c", c=_CHANNELS)


def _on_ellipse(
    line_width: float, height: int, width: int, rectangle: Float[Array, "4"]
) -> Bool[Array, "y xc"]:
    """Which bytes of an image of `height` and `width` lie on the outline."""
    whole, hole = (_ellipse_spans(rectangle, inset, height) for inset in (0.0, line_width))
    return _within(whole, width) & ~_within(hole, width)


def _rectangle_spans(rectangle: Float[Array, "4"], height: int) -> Spans:
    x0, y0, x1, y1 = rectangle
    rows = jnp.arange(height)
    return _spans(x0, x1, (rows >= y0) & (rows < y1))


def _ellipse_spans(rectangle: Float[Array, "4"], inset: float, height: int) -> Spans:
    """Pixels whose centre is in the ellipse inscribed in `rectangle`, its semi-axes `inset` shorter.

    In a row at distance t semi-axes from the centre they reach semi_x √(1 − t²) to either side. It is written
    so that no product meets a sum: a compiler that joins the two would round differently here and there.
    """
    x0, y0, x1, y1 = rectangle
    semi_x, semi_y = (x1 - x0) / 2 - inset, (y1 - y0) / 2 - inset
    distance = (jnp.arange(height) + 0.5 - (y0 + y1) / 2) / jnp.maximum(semi_y, 1e-6)
    reach = jnp.sqrt(semi_x * semi_x * jnp.maximum((1 - distance) * (1 + distance), 0))
    middle = (x0 + x1) / 2 - 0.5
    present = (jnp.abs(distance) <= 1) & (semi_x > 0) & (semi_y > 0)
    return _spans(jnp.ceil(middle - reach), jnp.floor(middle + reach) + 1, present)


def _spans(start: Array, stop: Array, present: Bool[Array, " y"]) -> Spans:
    """From `start` to before `stop` in every row where it is `present`, nothing elsewhere."""
    first = jnp.where(present, start, 0)
    length = jnp.where(present, jnp.maximum(stop - start, 0), 0)
    return first.astype(jnp.uint32), length.astype(jnp.uint32)


def _within(spans: Spans, width: int) -> Bool[Array, "*v y xc"]:
    """Which bytes of every row its span covers.

    Unsigned, a position before the first is a very large distance from it: one comparison is both.
    """
    first, length = (_CHANNELS * part[..., None] for part in spans)
    return jnp.arange(_CHANNELS * width, dtype=jnp.uint32) - first < length


def _red_bytes(width: int) -> UInt8[Array, " xc"]:
    return jnp.tile(jnp.array(_RED, jnp.uint8), width)
