"""Progressive masking of an object and the outline that points at it (LPOI, section 3.2)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

_RED = (255, 0, 0)


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
    masked = [
        masked_rectangle(box, i / (num_views - 1), image.shape[0], image.shape[1]) for i in range(num_views)
    ]
    views = []
    for rectangle in masked:
        view = jnp.where(_inside(rectangle, *image.shape[:2])[..., None], 0, image)
        views.append(ellipse_outline(view, rectangle, outline_width) if outline else view)
    return jnp.stack(views).astype(jnp.uint8)


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


def ellipse_outline(
    image: UInt8[Array, "y x 3"], rectangle: Float[Array, "4"], width: float = 1.0
) -> UInt8[Array, "y x 3"]:
    """A red ellipse inscribed in `rectangle`, `width` pixels wide; nothing where the rectangle is empty.

    A pixel is on the line when its centre is inside the ellipse but not inside the one whose semi-axes are
    `width` shorter.
    """
    x0, y0, x1, y1 = rectangle
    centre_x, centre_y = (x0 + x1) / 2, (y0 + y1) / 2
    semi_x, semi_y = (x1 - x0) / 2, (y1 - y0) / 2
    rows = jnp.arange(image.shape[0])[:, None] + 0.5
    columns = jnp.arange(image.shape[1])[None, :] + 0.5

    def within(semi_x: Array, semi_y: Array) -> Bool[Array, "y x"]:
        distance = ((columns - centre_x) / jnp.maximum(semi_x, 1e-6)) ** 2
        distance += ((rows - centre_y) / jnp.maximum(semi_y, 1e-6)) ** 2
        return (distance <= 1) & (semi_x > 0) & (semi_y > 0)

    line = within(semi_x, semi_y) & ~within(semi_x - width, semi_y - width)
    return jnp.where(line[..., None], jnp.array(_RED, jnp.uint8), image)


def _inside(rectangle: Float[Array, "4"], height: int, width: int) -> Bool[Array, "y x"]:
    x0, y0, x1, y1 = rectangle
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    return (rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1)
