"""A small CLIP or SigLIP with random parameters and a tokenizer of the built-in world's words."""

from functools import cache

import jax

from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.tokenizer import train_text_tokenizer
from vla_jax.data.world import CATEGORIES
from vla_jax.interop.clip_folder import Clip
from vla_jax.models import ViTConfig, clip, parameters
from vla_jax.models.clip import ClipConfig, TextTowerConfig


@cache
def small_clip(family: str = "clip", size: int = 24) -> Clip:
    """Reads 24 x 24 pixels as four patches, others likewise, and texts of at most 16 tokens."""
    tokenizer = train_text_tokenizer([f"{c.name}, {c.plural}" for c in CATEGORIES], 16, 320)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_layers": 2, "num_heads": 2}
    vision = ViTConfig(image_size=size, patch_size=12, family=family, **shape)
    text = TextTowerConfig(
        **shape, vocab_size=len(tokenizer), max_positions=16, end_id=tokenizer.eos_token_id
    )
    config = ClipConfig(vision, text, projection_size=16)
    params = parameters.initialise(clip.table(config), jax.random.key(0))
    return Clip(config, params, tokenizer, ImageProcessor.square(size))
