"""Random batches that any recipe can read: what is sampled in training is there too."""

import jax
import numpy as np

from tests.small_models import tiny_config
from vla_jax.data import Batch
from vla_jax.data.batches import Experience

CONFIG = tiny_config()


def batch_for(recipe, rows=3):
    """Random records of different lengths."""
    random = np.random.default_rng(0)
    roles = 1 + max(candidate.response for candidate in recipe.candidates) - len(recipe.made)
    prefix = random.integers(4, CONFIG.language.vocab_size, (rows, 10))
    prefix[:, 3 : 3 + CONFIG.num_image_tokens] = CONFIG.image_token_id
    prefix_mask = np.arange(10) >= np.arange(rows)[:, None] % 3
    mask = np.arange(5) < random.integers(2, 6, (rows, roles))[..., None]
    batch = Batch(
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
    return (
        batch._replace(experience=experience(mask, recipe.values)) if learns_from_rewards(recipe) else batch
    )


def learns_from_rewards(recipe):
    """Whether the objective is a policy gradient, and not of pairs that rewards have chosen."""
    rollout = recipe.rollout
    return rollout is not None and (rollout.verifier or (rollout.rewards and not rollout.roles))


def experience(mask, values):
    """What was found out about answers: every token's own; of a whole answer the first one's counts."""
    random = np.random.default_rng(1)
    drawn = [random.normal(size=mask.shape).astype(np.float32) for _ in range(4)]
    log_probs = np.where(mask, -4 + drawn[0], 0)
    return Experience(log_probs, drawn[1], *(drawn[2:] if values else (None, None)))


def rows_of(batch, rows):
    return jax.tree.map(lambda column: column[np.array(rows)], batch)
