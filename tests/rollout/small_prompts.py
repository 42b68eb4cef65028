"""A tiny model and three prompts about an image that the rollout's tests share."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tests.small_models import tiny_model
from vla_jax.models import LoraConfig, llava, lora
from vla_jax.models.lora import Adapter

MODEL = tiny_model()
IMAGE = MODEL.config.image_token_id


def left_padded(*prompts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and mask of prompts of any lengths."""
    length = max(map(len, prompts))
    tokens = np.array([[0] * (length - len(prompt)) + prompt for prompt in prompts], np.int32)
    mask = np.array([[False] * (length - len(prompt)) + [True] * len(prompt) for prompt in prompts])
    return tokens, mask


TOKENS, MASK = left_padded(
    [1, *[IMAGE] * 4, 70, 80],
    [1, 50, 60, *[IMAGE] * 4, 9, 8],
    [1, *[IMAGE] * 4, 5],
)


@cache
def image_tokens() -> Float[Array, "b n d"]:
    """Of three random images."""
    pixels = np.random.default_rng(0).normal(size=(3, 24, 24, 3)).astype(np.float32)
    return jax.jit(llava.image_features, static_argnums=1)(MODEL.params, MODEL.config, pixels)


@cache
def trained_adapter() -> Adapter:
    """An adapter that has been trained somewhere."""
    targets = LoraConfig(targets="language/.*[qv]_proj")
    fresh = lora.initialise(llava.table(MODEL.config), targets, jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), fresh)
