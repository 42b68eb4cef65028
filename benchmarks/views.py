"""How long lists of progressively masked views take to make: ours, jitted over the batch, against PIL.

    python -m benchmarks.views               # 64 lists of 5 views, 336 x 336
    python -m benchmarks.views --batch=16

Both start from uint8 images and boxes and end with one array [b v y x 3]; both mask with black and draw the
red ellipse. They take turns, so that what else the machine does troubles both. The last line is PIL's median
time over ours.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from vla_jax.views import progressive_masks

_LINE_WIDTH = 2


def random_batch(batch: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [b y x 3] and boxes [b 4] between an eighth and a half of the image's side."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, side, side, 3), np.uint8)
    sizes = rng.integers(side // 8, side // 2, (batch, 2))
    corners = rng.integers(0, side - sizes)
    return images, np.concatenate([corners, corners + sizes], axis=1)


def pil_views(images: np.ndarray, boxes: np.ndarray, num_views: int) -> np.ndarray:
    """The views drawn one after the other."""
    views = [
        np.asarray(pil_view(picture, box, i / (num_views - 1)))
        for picture, box in zip(map(Image.fromarray, images), boxes.tolist(), strict=True)
        for i in range(num_views)
    ]
    return np.stack(views).reshape(len(images), num_views, *images.shape[1:])


def pil_view(picture: Image.Image, box: list[int], share: float) -> Image.Image:
    """A copy with `share` of the box black, from the side nearest the border, and outlined."""
    x0, y0, x1, y1 = box
    columns, rows = round(share * (x1 - x0)), round(share * (y1 - y0))
    distances = (x0, y0, picture.width - x1, picture.height - y1)
    left, top, right, bottom = (
        (x0, y0, x0 + columns, y1),
        (x0, y0, x1, y0 + rows),
        (x1 - columns, y0, x1, y1),
        (x0, y1 - rows, x1, y1),
    )[distances.index(min(distances))]
    view = picture.copy()
    if right > left and bottom > top:
        draw = ImageDraw.Draw(view)
        draw.rectangle((left, top, right - 1, bottom - 1), fill=(0, 0, 0))
        draw.ellipse((left, top, right - 1, bottom - 1), outline=(255, 0, 0), width=_LINE_WIDTH)
    return view


def our_views(images: jax.Array, boxes: jax.Array, num_views: int) -> jax.Array:
    """The views of the whole batch."""
    one = partial(progressive_masks, num_views=num_views, outline_width=float(_LINE_WIDTH))
    return jax.vmap(one)(images, boxes)


def seconds(make: Callable[[], object]) -> float:
    """How long one call takes, its result ready."""
    start = time.perf_counter()
    jax.block_until_ready(make())
    return time.perf_counter() - start


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64, help="images")
    parser.add_argument("--views", type=int, default=5, help="views of each")
    parser.add_argument("--side", type=int, default=336, help="rows and columns of an image")
    parser.add_argument("--repeats", type=int, default=15, help="times that each takes its turn")
    options = parser.parse_args()
    images, boxes = random_batch(options.batch, options.side)
    jitted = jax.jit(our_views, static_argnums=2)
    makers = {
        "ours": lambda: jitted(jnp.asarray(images), jnp.asarray(boxes, jnp.float32), options.views),
        "PIL": lambda: pil_views(images, boxes, options.views),
    }
    ours, pil = (np.asarray(make()) for make in makers.values())  # compiles, too
    print(f"{options.batch} lists of {options.views} views, {options.side} x {options.side}")
    print(f"pixels that differ (PIL's ellipse is another by a pixel): {np.any(ours != pil, -1).mean():.4%}")
    times: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(options.repeats):
        for name, make in makers.items():
            times[name].append(seconds(make))
    medians = {name: float(np.median(taken)) for name, taken in times.items()}
    for name, median in medians.items():
        print(f"{name}: {1000 * median:.1f} ms, median of {options.repeats}")
    print(f"ratio {medians['PIL'] / medians['ours']:.2f}")


if __name__ == "__main__":
    main()
