"""The training step: views -> scores -> objective -> update, one jit-compiled function for every recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jaxtyping import Array, Float, Int, UInt8

from vla_jax.data import Batch
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter
from vla_jax.models.parameters import Params, overlay
from vla_jax.recipes import Recipe
from vla_jax.scoring.scores import Prompted, score

Metrics = Mapping[str, Float[Array, ""]]


class TrainState(flax.struct.PyTreeNode):
    """What changes from step to step.

    Attributes:
      step: updates done.
      trained: the adapter, or where there is none the parameters that are not frozen.
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
      full: parameters themselves are trained, not an adapter.
      seed: of the recipe's random views.
      frozen: some parameters stay as they are.
    """

    model: LlavaConfig
    recipe: Recipe
    optimizer: optax.GradientTransformation
    full: bool
    seed: int
    frozen: bool = False

    def init(self, trained: Any) -> TrainState:
        """The state before the first step."""
        return TrainState(jnp.int32(0), trained, self.optimizer.init(trained))

    @property
    def needs_base(self) -> bool:
        """Whether a step reads parameters it does not train: frozen, below an adapter, or the reference."""
        return not self.full or self.recipe.needs_reference or self.frozen

    def policy(self, trained: Any, base: Params) -> tuple[Params, Adapter | None]:
        """Parameters and adapter of the policy."""
        return (overlay(base, trained), None) if self.full else (base, trained)

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


class Sums(flax.struct.PyTreeNode):
    """What a batch adds up to; parts of a batch add up to the whole.

    Attributes:
      losses, denominators: of the objective; the loss is their quotient.
      metrics: of its metrics.
      weights: rows that count.
    """

    losses: Float[Array, ""]
    denominators: Float[Array, ""]
    metrics: Metrics
    weights: Float[Array, ""]

    @property
    def denominator(self) -> Float[Array, ""]:
        """What losses and gradients are divided by."""
        return jnp.maximum(self.denominators, 1.0)

    def means(self) -> Metrics:
        """The loss and the metrics, each a mean."""
        rows = jnp.maximum(self.weights, 1.0)
        return {"loss": self.losses / self.denominator, **{k: v / rows for k, v in self.metrics.items()}}


def sums_of(method: Method, trained: Any, base: Params, batch: Batch) -> Sums:
    """Losses, denominators and metrics, summed over the rows; rows of weight 0 count in none of them."""
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
    present = batch.weights > 0

    def total(values: Float[Array, " b"]) -> Float[Array, ""]:
        return jnp.sum(jnp.where(present, values * batch.weights, 0.0))

    totals = {name: total(values) for name, values in metrics.items()}
    return Sums(total(losses), total(denominators), totals, jnp.sum(batch.weights))


def gradients_and_metrics(
    method: Method, trained: Any, base: Params, batch: Batch, microbatches: int = 1
) -> tuple[Any, Metrics]:
    """Gradients of the batch's loss and its metrics, computed in so many parts, one after the other.

    Sums and denominators are carried, so the parts give what the whole would, whatever their tokens weigh.
    """

    def gradients_of(part: Batch) -> tuple[Any, Sums]:
        def losses(trained: Any) -> tuple[Float[Array, ""], Sums]:
            sums = sums_of(method, trained, base, part)
            return sums.losses, sums

        return jax.grad(losses, has_aux=True)(trained)

    if microbatches == 1:
        gradients, sums = gradients_of(batch)
    else:
        # Every part takes rows from the whole breadth of the batch, hence from every device.
        parts = jax.tree.map(lambda x: rearrange(x, "(b m) ... -> m b ...", m=microbatches), batch)
        first = jax.tree.map(lambda x: x[0], parts)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradients_of, first))

        def add(total: Any, part: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradients_of(part)), None

        (gradients, sums), _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda g: g / sums.denominator, gradients), sums.means()


def make_step(
    method: Method, microbatches: int = 1
) -> Callable[[TrainState, Params, Batch], tuple[TrainState, Metrics]]:
    """The jit-compiled step (state, base parameters, batch) -> (state, metrics); the old state is donated."""

    def step(state: TrainState, base: Params, batch: Batch) -> tuple[TrainState, Metrics]:
        gradients, metrics = gradients_and_metrics(method, state.trained, base, batch, microbatches)
        updates, optimizer_state = method.optimizer.update(gradients, state.optimizer_state, state.trained)
        metrics = {**metrics, "grad_norm": optax.tree.norm(gradients)}
        trained = optax.apply_updates(state.trained, updates)
        return TrainState(state.step + 1, trained, optimizer_state), metrics

    return jax.jit(step, donate_argnums=0)
