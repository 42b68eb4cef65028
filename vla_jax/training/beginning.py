"""What a run's step does and what it begins with, as its configuration says; arrays or shapes alike."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vla_jax.models import LlavaConfig, LoraConfig, llava, lora, parameters
from vla_jax.models.compute import Compute
from vla_jax.models.parameters import Params
from vla_jax.models.target import Target
from vla_jax.parallel import parameter_shardings, rows_apart
from vla_jax.recipes import Recipe, named
from vla_jax.training.optimizer import OptimizerConfig, make_optimizer
from vla_jax.training.step import Method, Trained


def recipe_of(config: ConfigDict) -> Recipe:
    """The recipe with its options."""
    return named(config.recipe, config.options[config.recipe].to_dict())


def low_rank_of(config: ConfigDict) -> LoraConfig | None:
    """The adapter's shape; None where all parameters are trained."""
    return LoraConfig(**config.lora.to_dict()) if config.lora.rank else None


def method_of(config: ConfigDict, model: LlavaConfig, recipe: Recipe, platform: str, mesh: Mesh) -> Method:
    """What is static in a step; to be traced under `jax.set_mesh(mesh)`.

    Args:
      config: the run's.
      model: the model's shape.
      recipe: the method.
      platform: the kind of machine the mesh is of: "cpu", "gpu" or "tpu".
      mesh: the devices.
    """
    optimizer = OptimizerConfig(**config.optimizer.to_dict())
    alone = mesh.size == 1 and platform == jax.default_backend()
    target = None if alone else Target(platform, rows=("data", "fsdp"), heads="tensor")
    return Method(
        model,
        recipe,
        make_optimizer(optimizer, config.train.steps * updates_of(recipe), llava.table(model)),
        config.seed,
        Compute(**config.compute.to_dict(), target=target),
        config.lora.dropout if config.lora.rank else 0.0,
    )


def trained_at_first(config: ConfigDict, model: LlavaConfig, recipe: Recipe, base: Params) -> Trained:
    """What is trained, as it begins.

    Args:
      config: the run's.
      model: the model's shape.
      recipe: the method.
      base: its parameters; what of them is trained whole stays where they lie.
    """
    low_rank = low_rank_of(config)
    if low_rank is None:
        adapter, whole = None, parameters.split(base, config.train.frozen)[1]
    else:
        key = jax.random.fold_in(jax.random.key(config.seed), 1)
        adapter = lora.initialise(llava.table(model), low_rank, key)
        whole = parameters.split(base, whole_beside_adapter(low_rank, recipe))[0]
    # In float32: half precision would round updates away. A copy: the step donates what it trains, and the
    # base may be the reference still.
    return Trained(adapter, jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), whole))


def placement(config: ConfigDict, mesh: Mesh, model: LlavaConfig, params: Params) -> Any:
    """Where each parameter of a model lives."""
    axes = parameters.logical_axes(llava.table(model))
    return parameter_shardings(mesh, params, axes, config.sharding.to_dict())


def whole_beside_adapter(low_rank: LoraConfig, recipe: Recipe) -> str:
    """Pattern of the parameters that are trained whole beside an adapter; new heads are."""
    heads = ["^reward/" if recipe.sequences else "", "^value/" if recipe.values else ""]
    patterns = [low_rank.modules_to_save, *heads]
    return "|".join(f"(?:{pattern})" for pattern in patterns if pattern)


def reads_base(config: ConfigDict, recipe: Recipe) -> bool:
    """Whether a step reads parameters that it does not train."""
    scores_reference = recipe.needs_reference and config.reference.mode != "cached"
    return bool(config.lora.rank or config.train.frozen or scores_reference)


def updates_of(recipe: Recipe) -> int:
    """Updates a step."""
    return 1 if recipe.rollout is None else recipe.rollout.updates


def microbatches_of(config: ConfigDict, mesh: Mesh, minibatches: int = 1) -> int:
    """In how many parts an update's rows go through the model: each a row or more of every device's.

    Args:
      config: the run's.
      mesh: the devices.
      minibatches: updates that a batch is divided over.
    """
    rows, apart = config.train.batch_size // minibatches, rows_apart(mesh)
    most = max(config.train.microbatch_size or rows, apart)
    return min(parts for parts in range(1, rows + 1) if rows % (parts * apart) == 0 and rows // parts <= most)
