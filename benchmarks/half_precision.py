"""How far bfloat16 moves the log-probability of a 150-token response: from float32, and from itself in other
buckets and batches.

    python -m benchmarks.half_precision                    # random weights, 63 M parameters
    python -m benchmarks.half_precision --model=runs/demo  # a trained model of ours
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from vla_jax.data import CHOSEN
from vla_jax.data.world import PreferenceWorld, WorldConfig
from vla_jax.interop import load_model
from vla_jax.models import LlamaConfig, LlavaConfig, ViTConfig, llava, lora, parameters
from vla_jax.scoring import token_log_probs

TOKENS, ROWS = 150, 16
SHAPE = LlavaConfig(
    ViTConfig(
        image_size=336, patch_size=14, hidden_size=256, intermediate_size=1024, num_layers=4, num_heads=4
    ),
    LlamaConfig(
        vocab_size=32000,
        hidden_size=640,
        intermediate_size=1728,
        num_layers=4,
        num_heads=10,
        num_kv_heads=10,
    ),
    image_token_id=31999,
)
score = jax.jit(token_log_probs, static_argnums=(2, 8))


def random_params(config: LlavaConfig) -> parameters.Params:
    """Every matrix scaled by its fan-in, none at zero: as loud as a trained model."""
    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        inputs = leaf.shape[-2] if len(leaf.shape) > 1 else 1
        values = rng.standard_normal(leaf.shape, np.float32) * (0.1 if inputs == 1 else inputs**-0.5)
        return jnp.asarray(values + (inputs == 1))

    return jax.tree.map(draw, parameters.abstract(llava.table(config)))


def random_answers() -> np.ndarray:
    """Ids of responses for a model that has learnt nothing."""
    return np.random.default_rng(1).integers(5, 30_000, (ROWS, TOKENS))


def chosen_answers(tokenizer: Any) -> np.ndarray:
    """Ids of responses that the world's models were taught: chosen answers, one after the other."""
    world = PreferenceWorld(WorldConfig(), ROWS * 20)
    texts = [" ".join(world[20 * row + i].responses[CHOSEN] for i in range(20)) for row in range(ROWS)]
    return np.stack([tokenizer(text, add_special_tokens=False)["input_ids"][:TOKENS] for text in texts])


def sums(
    params: parameters.Params, config: LlavaConfig, answers: np.ndarray, bucket: int, batch: int
) -> np.ndarray:
    """Log-probability of each row's response, padded to `bucket`, `batch` rows at a time."""
    side = config.vision.image_size
    prompt = np.concatenate([np.full(config.num_image_tokens, config.image_token_id), np.arange(5, 25)])
    prefix = np.broadcast_to(prompt, (ROWS, len(prompt)))
    answers = np.pad(answers, ((0, 0), (0, bucket - TOKENS)))[:, None]
    mask = np.broadcast_to(np.arange(bucket) < TOKENS, answers.shape)
    pixels = np.random.default_rng(1).standard_normal((ROWS, side, side, 3)).astype(np.float32)
    encode = jax.jit(partial(llava.image_features, config=config))
    made = []
    for start in range(0, ROWS, batch):
        part = slice(start, start + batch)
        features = encode(params, pixels=pixels[part])[:, None]
        made.append(
            score(
                params,
                None,
                config,
                features,
                prefix[part],
                np.ones_like(prefix[part], bool),
                answers[part],
                mask[part],
                ((0, 0),),
            ).sum(axis=(1, 2))
        )
    return np.concatenate(made)


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    if _MODEL.value:
        model = load_model(Path(_MODEL.value))
        config, params = model.config, lora.merge(model.params, model.adapter)
        answers = chosen_answers(model.tokenizer)
    else:
        config, params, answers = SHAPE, random_params(SHAPE), random_answers()
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{count / 1e6:.1f} M parameters, {ROWS} responses of {TOKENS} tokens, root mean square over them")
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)

    def run(params: parameters.Params, bucket: int = TOKENS, batch: int = 4) -> np.ndarray:
        return sums(params, config, answers, bucket, batch)

    exact = run(params)
    print(f"log-probability of a response, float32: {exact.mean():.1f} +- {exact.std():.1f}")

    def report(what: str, made: np.ndarray, reference: np.ndarray) -> None:
        print(f"{what}: {np.sqrt(np.mean((made - reference) ** 2)):.5f}")

    first = run(half)
    report("bfloat16 against float32", first, exact)
    report("of it, weights alone rounded to bfloat16", run(rounded), exact)
    report("bfloat16 in a bucket of 256", run(half, bucket=256), first)
    report("bfloat16, one row at a time", run(half, batch=1), first)
    report("float32 in a bucket of 256", run(params, bucket=256), exact)
    report("float32, one row at a time", run(params, batch=1), exact)


if __name__ == "__main__":
    _MODEL = flags.DEFINE_string("model", "", "A model folder of ours; random weights without it.")
    app.run(main)
