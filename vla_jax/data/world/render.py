"""A scene as pixels, boxes and masks."""

import numpy as np
from jaxtyping import UInt8

from vla_jax.data.schema import Object
from vla_jax.data.world.backgrounds import paint
from vla_jax.data.world.categories import COLOURS, SIZES
from vla_jax.data.world.scenes import Scene
from vla_jax.data.world.sprites import sprite

_COLOURS = {name: np.array(rgb, np.float32) for name, rgb in COLOURS.items()}


def render(scene: Scene, image_size: int) -> tuple[UInt8[np.ndarray, "y x 3"], list[Object]]:
    """The picture of a scene and what is in it.

    Args:
      scene: what to draw.
      image_size: side of the square picture in pixels.

    Returns:
      The RGB image, uint8 [y x 3], and one `Object` for each of `scene.objects`, in their order. A box
      surrounds the whole figure, also where others hide it; a mask holds the visible pixels alone.
    """
    image = paint(scene.background, image_size)
    owner = np.full((image_size, image_size), -1, np.int8)
    boxes = []
    for index, thing in enumerate(scene.objects):
        side = round(SIZES[thing.size] * image_size)
        left, top = (
            min(max(round(centre * image_size - side / 2), 0), image_size - side)
            for centre in (thing.x, thing.y)
        )
        figure = sprite(thing.name, side)
        place = slice(top, top + side), slice(left, left + side)
        patch = image[place]
        patch *= 1 - figure.alpha
        patch += figure.tinted * _COLOURS[thing.colour]
        patch += figure.fixed
        owner[place][figure.mask] = index
        x0, y0, x1, y1 = figure.extent
        boxes.append((float(left + x0), float(top + y0), float(left + x1), float(top + y1)))
    image += 0.5
    objects = [Object(thing.name, boxes[index], owner == index) for index, thing in enumerate(scene.objects)]
    return image.astype(np.uint8), objects
