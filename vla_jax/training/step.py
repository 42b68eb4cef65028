"""The training step: views -> scores -> objective -> update, one jit-compiled function for every recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, UInt8

from vla_jax.data import Batch
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter
from vla_jax.models.parameters import Params
from vla_jax.recipes import Recipe
from vla_jax.scoring.scores import Prompted, score

Metrics = Mapping[str, Float[Array, ""]]


class TrainState(flax.struct.PyTreeNode):
    """What changes from step to step.

    Attributes:
      step: updates done.
      trained: the adapter, or all parameters where there is none.
      optimizer_state: optax's.
    """

    step: Int[Array, ""]
    trained: Any
    optimizer_state: optax.OptState


@dataclass(frozen=True)
class Method:
    """What is static in a step.

    Attributes:
      model: shape of the model.
      recipe: the method.
      optimizer: of the trained tree.
      full: all parameters are trained, not an adapter.
      seed: of the recipe's random views.
    """

    model: LlavaConfig
    recipe: Recipe
    optimizer: optax.GradientTransformation
    full: bool
    seed: int

    def init(self, trained: Any) -> TrainState:
        """The state before the first step."""
        return TrainState(jnp.int32(0), trained, self.optimizer.init(trained))

    @property
    def needs_base(self) -> bool:
        """Whether a step reads frozen parameters: under an adapter, or as the reference."""
        return not self.full or self.recipe.needs_reference

    def policy(self, trained: Any, base: Params) -> tuple[Params, Adapter | None]:
        """Parameters and adapter of the policy."""
        return (trained, None) if self.full else (base, trained)

    def reference(self, base: Params) -> tuple[Params, None] | None:
        """The model training started from: the base with the adapter off, or the frozen copy of it."""
        return (base, None) if self.recipe.needs_reference else None


def make_views(recipe: Recipe, batch: Batch, seed: int) -> UInt8[Array, "b v y x 3"]:
    """The recipe's views of every image, their randomness keyed by (seed, record), never by the step."""

    def one(image: Array, box: Array, record_id: Array) -> Array:
        return recipe.make_views(image, box, jax.random.fold_in(jax.random.key(seed), record_id))

    return jax.vmap(one)(*map(jnp.asarray, (batch.images, batch.boxes, batch.record_ids)))


def view_strips(recipe: Recipe, batch: Batch, seed: int, limit: int) -> UInt8[Array, "b v y x 3"]:
    """The views of a batch's first rows, for people to look at."""
    rows = Batch(*(column[:limit] for column in batch))
    return jax.jit(make_views, static_argnums=(0, 2))(recipe, rows, seed)


def loss_and_metrics(
    method: Method, trained: Any, base: Params, batch: Batch
) -> tuple[Float[Array, ""], Metrics]:
    """The batch's loss, sum over sum, and its metrics; rows of weight 0 count in neither."""
    prompted = Prompted(*map(jnp.asarray, batch[2:7]))
    scores = score(
        method.model,
        method.policy(trained, base),
        method.reference(base),
        make_views(method.recipe, batch, method.seed),
        prompted,
        method.recipe.candidates,
        method.recipe.image_words,
    )
    losses, denominators, metrics = method.recipe.objective(scores)
    present, rows = batch.weights > 0, jnp.maximum(batch.weights.sum(), 1.0)

    def total(values: Float[Array, " b"]) -> Float[Array, ""]:
        return jnp.sum(jnp.where(present, values * batch.weights, 0.0))

    loss = total(losses) / jnp.maximum(total(denominators), 1.0)
    averages = {name: total(values) / rows for name, values in metrics.items()}
    return loss, {"loss": loss, **averages}


def make_step(
    method: Method,
) -> Callable[[TrainState, Params, Batch], tuple[TrainState, Metrics]]:
    """The jit-compiled step (state, base parameters, batch) -> (state, metrics); the old state is donated."""

    def step(state: TrainState, base: Params, batch: Batch) -> tuple[TrainState, Metrics]:
        def loss_of(trained: Any) -> tuple[Float[Array, ""], Metrics]:
            return loss_and_metrics(method, trained, base, batch)

        gradients, metrics = jax.grad(loss_of, has_aux=True)(state.trained)
        updates, optimizer_state = method.optimizer.update(gradients, state.optimizer_state, state.trained)
        metrics = {**metrics, "grad_norm": optax.global_norm(gradients)}
        trained = optax.apply_updates(state.trained, updates)
        return TrainState(state.step + 1, trained, optimizer_state), metrics

    return jax.jit(step, donate_argnums=0)
