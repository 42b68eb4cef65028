"""The models of `gpu.py`, with their inputs: LLaVA-1.5-7B's shape, and a small one for parity and for trying
the code out."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, PRNGKeyArray

from benchmarks.gpu_inputs import Job
from benchmarks.step_checkpoint import make_processor, make_tokenizer
from benchmarks.step_of_ours import prepared
from vla_jax.data import Batch
from vla_jax.data.tokenizer import IMAGE_TOKEN
from vla_jax.interop import Model
from vla_jax.models import LlamaConfig, LlavaConfig, LoraConfig, Parameter, ViTConfig, llava, lora, parameters
from vla_jax.models.lora import Adapter
from vla_jax.models.parameters import Params
from vla_jax.training.step import Trained

# Prompts of about 636 tokens, 576 of them the image's, are padded to 640, answers of up to 181 to 192.
LENGTH_MULTIPLE = 64
LORA = LoraConfig(rank=8, alpha=8.0)
# Heads of 64, which cuDNN's kernels take.
_SMALL_VISION = ViTConfig(
    image_size=56, patch_size=14, hidden_size=64, intermediate_size=128, num_layers=3, num_heads=2
)
_SMALL_LANGUAGE = LlamaConfig(
    hidden_size=128, intermediate_size=256, num_layers=2, num_heads=2, num_kv_heads=2
)


def abstract_model(small: bool) -> Model:
    """The model with shapes in the place of parameters."""
    tokenizer = make_tokenizer()
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    towers = (_SMALL_VISION, _SMALL_LANGUAGE) if small else (ViTConfig(), LlamaConfig())
    config = LlavaConfig(*towers, image_token_id)
    params = parameters.abstract(llava.table(config), jnp.bfloat16)
    return Model(config, params, tokenizer, make_processor(config))


def batches_of(model: Model, job: Job) -> list[Batch]:
    """One batch a step, on the host."""
    return prepared(model, job.settings, LENGTH_MULTIPLE)[0]


def random_params(config: LlavaConfig, dtype: DTypeLike) -> Params:
    """As loud as a trained model's, drawn on the device: matrices by fan-in, noise on all else, no zeros."""
    table = llava.table(config)

    def drawn(key: PRNGKeyArray) -> Params:
        initial = parameters.initialise(table, key, dtype)
        leaves, structure = jax.tree.flatten(initial)
        declared = jax.tree.leaves(table, is_leaf=lambda node: isinstance(node, Parameter))
        keys = jax.random.split(key, len(leaves))
        return jax.tree.unflatten(
            structure, [_draw(*each) for each in zip(declared, leaves, keys, strict=True)]
        )

    # The generator that a GPU draws from fastest.
    return jax.jit(drawn)(jax.random.key(0, impl="unsafe_rbg"))


def random_adapter(config: LlavaConfig, loud: bool = False) -> Trained:
    """A float32 adapter as a run begins with it, or one that is `loud`: B is not zero either."""

    def drawn(key: PRNGKeyArray) -> Adapter:
        adapter = lora.initialise(llava.table(config), LORA, key)
        leaves, structure = jax.tree.flatten(adapter)
        keys = jax.random.split(key, len(leaves))
        noise = [0.02 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
        return jax.tree.map(jnp.add, adapter, jax.tree.unflatten(structure, noise)) if loud else adapter

    return Trained(jax.jit(drawn)(jax.random.key(1)), {})


def _draw(parameter: Parameter, initial: Array, key: PRNGKeyArray) -> Array:
    noise = jax.random.normal(key, initial.shape, initial.dtype)
    scale = parameter.shape[-2] ** -0.5 if parameter.is_block_linear else 0.1
    return noise * scale if parameter.is_block_linear else initial + noise * scale
