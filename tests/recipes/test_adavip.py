"""What AdaViP removes from the image."""

import jax
import numpy as np

from tests.recipes.random_batches import CONFIG
from tests.small_models import tiny_tokenizer
from vla_jax.data import CHOSEN, REJECTED, Encoder, Object, Record
from vla_jax.data.batches import collate
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.images import Pixels
from vla_jax.recipes import named
from vla_jax.training.step import make_views

IMAGE = np.random.default_rng(3).integers(0, 256, (24, 24, 3), np.uint8)
# A triangle, and the box around it.
MASK = np.tri(24, dtype=bool) & (np.arange(24) >= 4)[:, None] & (np.arange(24) < 16)[:, None]
BOX = (0.0, 4.0, 16.0, 16.0)


def record(mask):
    answers = {CHOSEN: "A cat.", REJECTED: "A dog."}
    return Record("key", (Pixels(IMAGE),), "What is it?", answers, objects=(Object("cat", BOX, mask),))


def changed_by_removal(dilation):
    """Pixels that the removed view changes: of a record with a mask, of one without; read as a run does."""
    recipe = named("adavip", {"dilation": dilation})
    encoder = Encoder(
        tiny_tokenizer(),
        ImageProcessor.square(24),
        CONFIG.num_image_tokens,
        recipe.responses,
        masks=recipe.masks,
    )
    batch = collate([encoder.encode(record(mask)) for mask in (MASK, None)], encoder)
    views = np.asarray(jax.jit(make_views, static_argnums=(0, 2))(recipe, batch, 0))
    np.testing.assert_array_equal(views[:, 0], [IMAGE, IMAGE])
    return (views[:, 1] != IMAGE).any(-1)


def assert_filled(changed, hole):
    """The hole is what changed; of noise, hardly a pixel is its own fill already."""
    assert not changed[~hole].any()
    assert changed[hole].mean() > 0.95


def test_the_objects_mask_is_removed_where_the_data_has_one_and_else_its_box():
    boxed = np.zeros_like(MASK)
    boxed[4:16, 0:16] = True
    assert 0 < MASK.sum() < boxed.sum()
    by_mask, by_box = changed_by_removal(dilation=0)
    assert_filled(by_mask, MASK)
    assert_filled(by_box, boxed)


def test_what_is_removed_is_as_much_wider_as_asked():
    boxed = np.zeros_like(MASK)
    boxed[2:18, 0:18] = True
    assert_filled(changed_by_removal(dilation=2)[1], boxed)
