"""FLOPs of one training example for LLaVA-1.5-7B, counted in the program, for every layout of candidates.

    make flops        or: python -m benchmarks.flops

Walks the jaxpr of loss and gradient (nothing is computed; parameters are abstract), multiplies what stands in
a scan by its trip count, which XLA's own cost analysis does not, and counts matrix products and convolutions.
What no output needs is left out first, as XLA leaves it out. Printed at the lengths of one example (576 image
tokens, 60 of the prompt, 150 of an answer) and padded to multiples of 128, with and without a cached
reference, beside what the usual stack computes: every candidate read whole, with its own run of the vision
tower, logits at every position, and the reference scored in the step.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from tqdm import tqdm

from vla_jax.data import Batch
from vla_jax.data.batches import Kept
from vla_jax.models import LlavaConfig, LoraConfig, llava, lora, parameters
from vla_jax.models.compute import Compute
from vla_jax.objectives import plackett_luce
from vla_jax.recipes import Objective, Recipe, named
from vla_jax.recipes.recipe import original, per_example
from vla_jax.scoring import Candidate, Scores
from vla_jax.training.flops import program_flops
from vla_jax.training.step import Method, Trained, gradients_and_metrics

IMAGE, PROMPT, ANSWER = 576, 60, 150
BUCKET = 128
TERA = 1e12


def step_flops(
    config: LlavaConfig,
    recipe: Recipe,
    *,
    prefix: int,
    answer: int,
    rank: int,
    cached: bool,
    remat: str = "block",
) -> int:
    """FLOPs of loss and gradient of one example.

    Args:
      config: the model.
      recipe: the method.
      prefix, answer: tokens of a prompt, its image's counted, and of every answer.
      rank: of the adapter on every linear layer of the language model; 0 trains all but the tower.
      cached: the reference's log-probabilities come with the batch.
      remat: see `Compute`.
    """
    table = llava.table(config)
    base = parameters.abstract(table, jnp.bfloat16)
    if rank:
        start = jax.eval_shape(
            lambda: lora.initialise(table, LoraConfig(rank, float(rank)), jax.random.key(0))
        )
        trained = Trained(start, {})
    else:
        trained = Trained(None, parameters.split(base, "^vision/")[1])
    method = Method(config, recipe, optax.identity(), seed=0, compute=Compute(remat=remat))
    batch = abstract_batch(config, recipe, prefix, answer, cached)
    return program_flops(
        lambda trained, base, batch: gradients_and_metrics(method, trained, base, batch), trained, base, batch
    )


def abstract_batch(config: LlavaConfig, recipe: Recipe, prefix: int, answer: int, cached: bool) -> Batch:
    """Shapes of one example."""
    side, roles = config.vision.image_size, len(recipe.responses)

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *shape), dtype)

    kept = Kept(
        array(jnp.float32, len(recipe.candidates), answer), array(jnp.int32, len(recipe.made), answer)
    )
    return Batch(
        images=array(jnp.uint8, side, side, 3),
        boxes=array(jnp.float32, 4),
        prefix_tokens=array(jnp.int32, prefix),
        prefix_mask=array(jnp.bool_, prefix),
        response_tokens=array(jnp.int32, roles, answer),
        response_mask=array(jnp.bool_, roles, answer),
        scored=array(jnp.bool_, roles, answer),
        record_ids=array(jnp.uint32),
        weights=array(jnp.float32),
        masks=array(jnp.bool_, side, side) if recipe.masks else None,
        changed=array(jnp.bool_, roles, answer) if recipe.changes else None,
        reference=kept if cached else None,
    )


def usual_flops(config: LlavaConfig, candidates: int, prefix: int, answer: int) -> int:
    """What four forwards of every whole candidate cost: policy, recomputed, backward by inputs, reference."""
    params = parameters.abstract(llava.table(config), jnp.bfloat16)
    length = prefix + answer

    def forward(params: Any, pixels: Any, tokens: Any, valid: Any) -> Any:
        features = llava.image_features(params, config, pixels)
        return llava.logits(params, llava.hidden_states(params, config, tokens, valid, features))

    side = config.vision.image_size
    one = program_flops(
        forward,
        params,
        jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32),
        jax.ShapeDtypeStruct((1, length), jnp.int32),
        jax.ShapeDtypeStruct((1, length), jnp.bool_),
    )
    return 4 * candidates * one


def ranked_responses(count: int) -> Recipe:
    """A Plackett-Luce list of answers under one image."""

    def objective(scores: Scores) -> Objective:
        return per_example(plackett_luce(0.1 * scores.log_ratios), {})

    return Recipe(
        responses=tuple(f"rank {i + 1}" for i in range(count)),
        view_names=("image",),
        make_views=original,
        candidates=tuple(Candidate(0, i) for i in range(count)),
        objective=objective,
    )


def recipes() -> dict[str, Recipe]:
    """What is counted."""
    return {
        "pair (dpo)": named("dpo"),
        "pair and crop (mdpo)": named("mdpo"),
        **{f"list of {n} views (lpoi)": named("lpoi", {"num_views": n}) for n in (3, 4, 5)},
        "pair and removed (adavip)": named("adavip"),
        "list of 5 answers": ranked_responses(5),
    }


def rounded(length: int) -> int:
    """Padded to the next bucket."""
    return -(-length // BUCKET) * BUCKET


def rows(config: LlavaConfig, ranks: Sequence[int]) -> Iterator[tuple[str, list[float]]]:
    """(name, [usual, exact online, exact cached, padded cached, exact cached without remat]) in TFLOP."""
    prefix = IMAGE + PROMPT
    for rank in ranks:
        for name, recipe in recipes().items():

            def counted(
                prefix: int, answer: int, cached: bool, remat: str, recipe: Recipe = recipe, rank: int = rank
            ) -> int:
                return step_flops(
                    config, recipe, prefix=prefix, answer=answer, rank=rank, cached=cached, remat=remat
                )

            figures = [
                usual_flops(config, len(recipe.candidates), prefix, ANSWER) if rank else math.nan,
                counted(prefix, ANSWER, False, "block"),
                counted(prefix, ANSWER, True, "block"),
                counted(rounded(prefix), rounded(ANSWER), True, "block"),
                counted(prefix, ANSWER, True, "none"),
            ]
            yield f"{name}, {f'LoRA {rank}' if rank else 'full'}", [figure / TERA for figure in figures]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rank", type=int, default=8, help="of the adapter")
    arguments = parser.parse_args()
    config = replace(LlavaConfig(), image_token_id=32000)
    heads = ("usual stack", "online", "cached", f"cached, to {BUCKET}s", "cached, no remat")
    lines = ["| TFLOP an example | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, figures in tqdm(rows(config, (arguments.rank, 0)), total=2 * len(recipes()), unit="layout"):
        cells = ["" if math.isnan(figure) else f"{figure:.1f}" for figure in figures]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    print("\n".join(lines))
    print(
        f"\nLLaVA-1.5-7B, {IMAGE} image tokens, {PROMPT} of the prompt, {ANSWER} of every answer; remat by "
        "block where nothing else is said"
    )


if __name__ == "__main__":
    main()
