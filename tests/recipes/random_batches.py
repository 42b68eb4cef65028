"""Random batches that any recipe can read."""

import jax
import numpy as np

from tests.small_models import tiny_config
from vla_jax.data import Batch

CONFIG = tiny_config()


def batch_for(recipe, rows=3):
    """Random records of different lengths."""
    random, roles = np.random.default_rng(0), len(recipe.responses)
    prefix = random.integers(4, CONFIG.language.vocab_size, (rows, 10))
    prefix[:, 3 : 3 + CONFIG.num_image_tokens] = CONFIG.image_token_id
    prefix_mask = np.arange(10) >= np.arange(rows)[:, None] % 3
    mask = np.arange(5) < random.integers(2, 6, (rows, roles))[..., None]
    return Batch(
        images=random.integers(0, 256, (rows, 24, 24, 3), np.uint8),
        boxes=np.array([[2, 6, 14, 17], [6, 10, 17, 23], [8, 4, 23, 15]] * rows, np.float32)[:rows],
        prefix_tokens=prefix.astype(np.int32),
        prefix_mask=prefix_mask,
        response_tokens=random.integers(4, CONFIG.language.vocab_size, (rows, roles, 5)).astype(np.int32),
        response_mask=mask,
        scored=mask,
        record_ids=np.arange(100, 100 + rows).astype(np.uint32),
        weights=np.ones(rows, np.float32),
        masks=random.integers(0, 2, (rows, 24, 24)) > 0 if recipe.masks else None,
        changed=mask & (random.integers(0, 2, mask.shape) > 0) if recipe.changes else None,
    )


def rows_of(batch, rows):
    return jax.tree.map(lambda column: column[np.array(rows)], batch)
