"""A training step's arguments as shapes on a mesh: what it takes to compile it, and no array anywhere."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from vla_jax.data import Batch
from vla_jax.data.batches import Kept, collate
from vla_jax.interop import Model
from vla_jax.interop.published import published
from vla_jax.models import llava, parameters
from vla_jax.models.parameters import Params
from vla_jax.parallel import batch_sharding, replicated
from vla_jax.recipes import Recipe
from vla_jax.training.assembly import encoder_of
from vla_jax.training.beginning import placement, recipe_of, trained_at_first
from vla_jax.training.step import Method, TrainState


def abstract_model(config: ConfigDict) -> Model:
    """The published model that a configuration starts from, without a tokenizer and with shapes for weights.

    In bfloat16 beside an adapter, in float32 where all parameters are trained, as the configs import it.

    Raises:
      ValueError: where its shape is not known.
    """
    known, recipe = published(config.base.model), recipe_of(config)
    shape = replace(known.config, reward_head=recipe.sequences)
    dtype = jnp.bfloat16 if config.lora.rank else jnp.float32
    return Model(shape, parameters.abstract(llava.table(shape), dtype), None, known.processor)


def abstract_base(config: ConfigDict, mesh: Mesh, model: Model) -> Params:
    """The model's parameters where a run places them."""
    return _placed(model.params, placement(config, mesh, model.config, model.params))


def abstract_state(
    config: ConfigDict, mesh: Mesh, model: Model, recipe: Recipe, method: Method
) -> TrainState:
    """The state before the first step, where a run places it: what is trained whole and its moments lie as
    the base does, all else is on every device."""
    trained = jax.eval_shape(lambda base: trained_at_first(config, model.config, recipe, base), model.params)
    state = jax.eval_shape(method.init, trained)
    everywhere: Any = replicated(mesh)
    places = trained._replace(
        adapter=jax.tree.map(lambda _: everywhere, trained.adapter),
        params=_part(placement(config, mesh, model.config, model.params), trained.params),
    )
    moments = optax.tree.map_params(
        method.optimizer,
        # A moment has its parameter's shape, or is a factor of it.
        lambda moment, trained, place: place if moment.shape == trained.shape else everywhere,
        state.optimizer_state,
        trained,
        places,
        transform_non_params=lambda _: everywhere,
    )
    return _placed(state, TrainState(everywhere, places, moments))


def abstract_batch(config: ConfigDict, mesh: Mesh, model: Model, recipe: Recipe) -> Batch:
    """The largest batch of a run: prompts and responses as long as they may be."""
    rows, encoder = config.train.batch_size, encoder_of(config, model, recipe)
    limits = encoder.max_prompt_length, encoder.max_completion_length
    # One row of padding has every field there is.
    batch = collate([None], encoder, limits)
    if config.reference.mode == "cached":
        length = batch.response_tokens.shape[2]
        tokens = np.zeros((1, len(recipe.candidates), length), np.float32)
        made = np.zeros((1, len(recipe.made), length), np.int32)
        batch = batch._replace(reference=Kept(tokens, made))
    place = batch_sharding(mesh)
    return jax.tree.map(
        lambda row: jax.ShapeDtypeStruct((rows, *row.shape[1:]), row.dtype, sharding=place), batch
    )


def _placed(shapes: Any, places: Any) -> Any:
    return jax.tree.map(
        lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place), shapes, places
    )


def _part(tree: Any, wanted: Any) -> Any:
    """Of a tree, what another one has too."""
    if isinstance(tree, NamedSharding):
        return tree
    return {name: _part(tree[name], child) for name, child in wanted.items()}
