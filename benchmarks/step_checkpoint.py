"""Writes the checkpoint of `step_vs_trl.py`: LLaVA-1.5's shape at 63 million parameters, with random weights.

python -m benchmarks.step_checkpoint runs/step_vs_trl/checkpoint
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from transformers import PreTrainedTokenizerFast

from benchmarks.step_inputs import words
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.tokenizer import IMAGE_TOKEN, train_tokenizer
from vla_jax.interop import Model, export_model
from vla_jax.models import LlamaConfig, LlavaConfig, Parameter, ViTConfig, llava, parameters

# As in LLaVA-1.5, embeddings and output matrix are two, and an image takes 576 tokens.
VISION = ViTConfig(
    image_size=336, patch_size=14, hidden_size=384, intermediate_size=1024, num_layers=3, num_heads=6
)
LANGUAGE = LlamaConfig(
    vocab_size=32_000,
    hidden_size=512,
    intermediate_size=1376,
    num_layers=8,
    num_heads=8,
    num_kv_heads=8,
)
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the human's questions. "
)


def main() -> None:
    """Writes it to the folder that the command line names."""
    tokenizer = make_tokenizer()
    config = LlavaConfig(VISION, LANGUAGE, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    export_model(Path(sys.argv[1]), Model(config, random_params(config), tokenizer, make_processor(config)))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of 32,000 tokens that knows the words of `step_inputs`, with Vicuna's system prompt."""
    tokenizer = train_tokenizer(_corpus(), LANGUAGE.vocab_size)
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "{{ bos_token }}" + SYSTEM)
    return tokenizer


def make_processor(config: LlavaConfig) -> ImageProcessor:
    """Resizes the short side and crops the middle, as CLIP's does."""
    side = config.vision.image_size
    return ImageProcessor(side, (side, side), resample=Image.Resampling.BICUBIC)


def random_params(config: LlavaConfig) -> parameters.Params:
    """As loud as a trained model's: matrices scaled by fan-in, noise on all else, nothing left at zero."""
    table = llava.table(config)
    rng = np.random.default_rng(0)

    def draw(parameter: Parameter, initial: jax.Array) -> jax.Array:
        noise = rng.standard_normal(parameter.shape, np.float32)
        if parameter.is_block_linear:
            return jnp.asarray(noise * parameter.shape[-2] ** -0.5)
        return initial + 0.1 * noise

    initial = parameters.initialise(table, jax.random.key(0))
    return jax.tree.map(draw, table, initial, is_leaf=lambda node: isinstance(node, Parameter))


def _corpus() -> Iterator[str]:
    """Every word a few times, so that most become one token each, as common words are to a real tokenizer."""
    rng = np.random.default_rng(1)
    for _ in range(4):
        yield from (" ".join(line) for line in rng.permutation(words()).reshape(-1, 20))
    yield from [f"{SYSTEM}USER: \n?."] * 100


if __name__ == "__main__":
    main()
