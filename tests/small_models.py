"""Small models that tests build for real: a tower of four patches, a decoder of two layers, a tokenizer."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import jax
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray
from transformers import PreTrainedTokenizerFast

from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.tokenizer import IMAGE_TOKEN, train_tokenizer
from vla_jax.data.world import WorldConfig, training_corpus
from vla_jax.interop import Model
from vla_jax.models import LlamaConfig, LlavaConfig, ViTConfig, llava, parameters
from vla_jax.models.parameters import Params, Table


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows the built-in world's words."""
    return train_tokenizer(training_corpus(WorldConfig(), records=20))


def tiny_config(
    *, vision: Mapping[str, Any] | None = None, language: Mapping[str, Any] | None = None, **overrides: Any
) -> LlavaConfig:
    """A LLaVA that reads 24 x 24 pixels as four image tokens and has `tiny_tokenizer`'s vocabulary.

    Args:
      vision, language: fields of the towers that differ.
      overrides: other fields of `LlavaConfig`.
    """
    config = LlavaConfig(
        ViTConfig(
            image_size=24, patch_size=12, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=2
        ),
        LlamaConfig(
            vocab_size=len(tiny_tokenizer()),
            hidden_size=32,
            intermediate_size=48,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
        ),
        image_token_id=tiny_tokenizer().convert_tokens_to_ids(IMAGE_TOKEN),
    )
    return replace(
        config,
        vision=replace(config.vision, **(vision or {})),
        language=replace(config.language, **(language or {})),
        **overrides,
    )


def tiny_model(seed: int = 0, **overrides: Any) -> Model:
    """A `tiny_config` model with random parameters and no adapter; `overrides` are `tiny_config`'s."""
    config = tiny_config(**overrides)
    processor = ImageProcessor.square(config.vision.image_size)
    return Model(config, draw(llava.table(config), seed), tiny_tokenizer(), processor)


def draw(table: Table, seed: int = 0) -> Params:
    """Random values for a table in one program, from the generator that compiles fastest.

    Noise on top of the initial values moves what begins at 0 or 1 (biases, norms, ends of blocks), so that a
    test sees every parameter.
    """

    def drawn(key: PRNGKeyArray) -> Params:
        values = parameters.initialise(table, key)
        noise = jax.random.normal(key, (parameters.size(table),))
        flat, unravel = ravel_pytree(values)
        return unravel(flat + 0.1 * noise)

    return jax.jit(drawn)(jax.random.key(seed, impl="unsafe_rbg"))
