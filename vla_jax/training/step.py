"""The training step: views -> scores -> objective -> update, one jit-compiled function for every recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jaxtyping import Array, Float, Int, UInt8

from vla_jax.data import Batch
from vla_jax.models import lora
from vla_jax.models.compute import Compute
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter
from vla_jax.models.parameters import Params, overlay
from vla_jax.recipes import KeyObject, Recipe, Rollout
from vla_jax.scoring import (
    Prompted,
    ReferenceScores,
    Scores,
    encode_views,
    reference_divergences,
    reference_scores,
    same_eyes,
    score,
    with_made,
)
from vla_jax.scoring.scores import Model

Metrics = Mapping[str, Float[Array, ""]]


class Trained(NamedTuple):
    """What a run trains.

    Attributes:
      adapter: a LoRA adapter; None where there is none.
      params: parameters trained whole: some beside an adapter, else all that are not frozen.
    """

    adapter: Adapter | None
    params: Params


class TrainState(flax.struct.PyTreeNode):
    """What changes from step to step.

    Attributes:
      step: updates done.
      trained: what is trained.
      optimizer_state: optax's.
    """

    step: Int[Array, ""]
    trained: Trained
    optimizer_state: optax.OptState


@dataclass(frozen=True)
class Method:
    """What is static in a step.

    Attributes:
      model: shape of the model.
      recipe: the method.
      optimizer: of the trained tree.
      seed: of the recipe's random views and of dropout.
      compute: how the language model is computed.
      dropout: of the adapter's inputs.
    """

    model: LlavaConfig
    recipe: Recipe
    optimizer: optax.GradientTransformation
    seed: int
    compute: Compute = Compute()
    dropout: float = 0.0

    def init(self, trained: Trained) -> TrainState:
        """The state before the first step."""
        return TrainState(jnp.int32(0), trained, self.optimizer.init(trained))

    def policy(self, trained: Trained, base: Params, draw: Int[Array, ""] | int = 0) -> Model:
        """Parameters and adapter of the policy; `draw` numbers what dropout draws."""
        adapter = trained.adapter
        if adapter is not None and self.dropout:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), _DROPOUT), draw)
            adapter = lora.with_dropout(adapter, self.dropout, key)
        return overlay(base, trained.params), adapter

    def reference_scores(
        self, base: Params, batch: Batch, policy: Model | None = None, features: Array | None = None
    ) -> ReferenceScores:
        """What the model that training starts from says of a batch.

        It is the base with the adapter off, or the frozen copy where all parameters are trained.

        Args:
          base: its parameters.
          batch: the batch.
          policy, features: a policy and the views as it sees them, shared where both see alike.
        """
        recipe, reference = self.recipe, (base, None)
        if features is None or policy is None or not same_eyes(policy, reference):
            features = encode_views(
                self.model, reference, make_views(recipe, batch, self.seed), _on_device(batch.layout)
            )
        return reference_scores(
            self.model,
            reference,
            jax.lax.stop_gradient(features),
            prompted_of(batch),
            recipe.candidates,
            recipe.made,
            self.compute,
        )

    def divergences(
        self, trained: Trained, base: Params, batch: Batch, draw: Int[Array, ""] | int = 0
    ) -> Float[Array, "b c t"]:
        """How far policy and reference are apart at every token."""
        reference, policy = (base, None), self.policy(trained, base, draw)
        views = make_views(self.recipe, batch, self.seed)[:, : self.recipe.candidate_views]
        layout = _on_device(batch.layout)
        seen = encode_views(self.model, policy, views, layout)
        alike = same_eyes(policy, reference)
        features = seen if alike else encode_views(self.model, reference, views, layout), seen
        return reference_divergences(
            self.model, reference, policy, features, prompted_of(batch), self.recipe.candidates, self.compute
        )

    def scores(self, trained: Trained, base: Params, batch: Batch, draw: Int[Array, ""] | int = 0) -> Scores:
        """Scores of a batch under the policy, beside the reference's: those in the batch, or made here."""
        views = make_views(self.recipe, batch, self.seed)
        return self.scores_of_views(trained, base, batch, views, draw)

    def scores_of_views(
        self, trained: Trained, base: Params, batch: Batch, views: Array, draw: Int[Array, ""] | int = 0
    ) -> Scores:
        """The same, of views made already; floats can be differentiated by."""
        recipe, policy, layout = self.recipe, self.policy(trained, base, draw), _on_device(batch.layout)
        known = None if batch.reference is None else ReferenceScores(*map(jnp.asarray, batch.reference))
        if known is not None or not recipe.needs_reference:
            # What only the reference looked at need not be looked at again.
            views = views[:, : recipe.candidate_views]
        features = encode_views(self.model, policy, views, layout)
        if known is None and recipe.needs_reference:
            known = self.reference_scores(base, batch, policy, features)
        return score(
            self.model,
            policy,
            features,
            prompted_of(batch) if known is None else with_made(prompted_of(batch), known.made, recipe.made),
            recipe.candidates,
            known,
            image_words=recipe.image_words,
            sequences=recipe.sequences,
            values=recipe.values,
            compute=self.compute,
        ).replace(
            experience=jax.tree.map(jnp.asarray, batch.experience),
            divergences=self.divergences(trained, base, batch, draw) if recipe.divergences else None,
        )


# Set apart from the keys of views, which are records' hashes.
_DROPOUT = 0x0D20
_ORDERS = 0x9A55


def _on_device(array: Any) -> Any:
    return None if array is None else jnp.asarray(array)


def prompted_of(batch: Batch) -> Prompted:
    """The token side of a batch."""
    return Prompted(
        prefix_tokens=jnp.asarray(batch.prefix_tokens),
        prefix_mask=jnp.asarray(batch.prefix_mask),
        response_tokens=jnp.asarray(batch.response_tokens),
        response_mask=jnp.asarray(batch.response_mask),
        scored=jnp.asarray(batch.scored),
        changed=_on_device(batch.changed),
    )


def make_views(recipe: Recipe, batch: Batch, seed: int) -> UInt8[Array, "b v *k y x 3"]:
    """The recipe's views of every image, their randomness keyed by (seed, record), never by the step."""

    def one(image: Array, box: Array, mask: Array | None, key: Array) -> Array:
        return recipe.make_views(image, KeyObject(box, mask), key)

    def row(image: Array, box: Array, mask: Array | None, record_id: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(seed), record_id)
        if batch.layout is None:
            return one(image, box, mask, key)
        keys = jax.random.split(key, len(image))
        return jax.vmap(one, in_axes=(0, None, None, 0), out_axes=1)(image, box, mask, keys)

    columns = (batch.images, batch.boxes, batch.masks, batch.record_ids)
    return jax.vmap(row)(*map(_on_device, columns))


def view_strips(recipe: Recipe, batch: Batch, seed: int) -> UInt8[Array, "b v y x 3"]:
    """The views of a batch, for people to look at; of an image in tiles, its first tile."""
    views = jax.jit(make_views, static_argnums=(0, 2))(recipe, batch, seed)
    return views if batch.layout is None else views[:, :, 0]


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


def sums_of(
    method: Method, trained: Trained, base: Params, batch: Batch, draw: Int[Array, ""] | int = 0
) -> Sums:
    """Losses, denominators and metrics, summed over the rows; rows of weight 0 count in none of them."""
    losses, denominators, metrics = method.recipe.objective(method.scores(trained, base, batch, draw))
    present = batch.weights > 0

    def total(values: Float[Array, " b"]) -> Float[Array, ""]:
        return jnp.sum(jnp.where(present, values * batch.weights, 0.0))

    totals = {name: total(values) for name, values in metrics.items()}
    return Sums(total(losses), total(denominators), totals, jnp.sum(batch.weights))


def gradients_and_metrics(
    method: Method,
    trained: Trained,
    base: Params,
    batch: Batch,
    microbatches: int = 1,
    step: Int[Array, ""] | int = 0,
) -> tuple[Trained, Metrics]:
    """Gradients of the batch's loss and its metrics, computed in so many parts, one after the other.

    Sums and denominators are carried, so the parts give what the whole would, whatever their tokens weigh.
    """

    def gradients_of(part: Batch, draw: Int[Array, ""] | int) -> tuple[Trained, Sums]:
        def losses(trained: Trained) -> tuple[Float[Array, ""], Sums]:
            sums = sums_of(method, trained, base, part, draw)
            return sums.losses, sums

        return jax.grad(losses, has_aux=True)(trained)

    if microbatches == 1:
        gradients, sums = gradients_of(batch, step)
    else:
        # Every part takes rows from the whole breadth of the batch, hence from every device.
        parts = jax.tree.map(lambda x: rearrange(x, "(b m) ... -> m b ...", m=microbatches), batch)
        first = jax.tree.map(lambda x: x[0], parts)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradients_of, first, 0))

        def add(total: Any, part: tuple[Batch, Int[Array, ""]]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradients_of(*part)), None

        draws = step * microbatches + jnp.arange(microbatches)
        (gradients, sums), _ = jax.lax.scan(add, zeros, (parts, draws))
    return jax.tree.map(lambda g: g / sums.denominator, gradients), sums.means()


def make_step(
    method: Method, microbatches: int = 1, placement: Any = None, skip_nonfinite: bool = False
) -> Callable[[TrainState, Params, Batch], tuple[TrainState, Metrics]]:
    """The jit-compiled step (state, base parameters, batch) -> (state, metrics); the old state is donated.

    Args:
      method: what a step does.
      microbatches: in how many parts a batch goes through the model.
      placement: shardings of the new state, those of the old one, and of the metrics; None leaves them to
        XLA.
      skip_nonfinite: leave what is trained as it is where a metric is not finite, and count that in the
        metric `skipped_steps`.
    """

    def update(
        state: TrainState, base: Params, batch: Batch, draw: Int[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        gradients, metrics = gradients_and_metrics(method, state.trained, base, batch, microbatches, draw)
        updates, optimizer_state = method.optimizer.update(gradients, state.optimizer_state, state.trained)
        tokens = jnp.sum(batch.prefix_mask) + jnp.sum(batch.response_mask)
        metrics = {**metrics, "grad_norm": optax.tree.norm(gradients), "num_tokens": tokens}
        trained = optax.apply_updates(state.trained, updates)
        after = TrainState(state.step, trained, optimizer_state)
        if skip_nonfinite:
            finite = jnp.all(jnp.isfinite(jnp.stack([jnp.float32(value) for value in metrics.values()])))
            after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
            metrics["skipped_steps"] = jnp.where(finite, 0.0, 1.0)
        return after, metrics

    def step(state: TrainState, base: Params, batch: Batch) -> tuple[TrainState, Metrics]:
        if method.recipe.rollout is None:
            after, metrics = update(state, base, batch, state.step)
            return after.replace(step=state.step + 1), metrics

        def of_rows(state: TrainState, part: tuple[Array, Array]) -> tuple[TrainState, Metrics]:
            rows, draw = part
            return update(state, base, jax.tree.map(lambda column: jnp.asarray(column)[rows], batch), draw)

        updates = method.recipe.rollout.updates
        orders = _orders(method.recipe.rollout, len(batch.weights), method.seed, state.step)
        after, each = jax.lax.scan(of_rows, state, (orders, state.step * updates + jnp.arange(updates)))
        metrics = {name: jnp.mean(values, axis=0) for name, values in each.items()}
        return after.replace(step=state.step + 1), {**metrics, "num_tokens": jnp.sum(each["num_tokens"])}

    return jax.jit(step, donate_argnums=0, out_shardings=placement)


def _orders(rollout: Rollout, rows: int, seed: int, step: Int[Array, ""]) -> Int[Array, "u r"]:
    """The rows of every update of a round; each pass over them has an order of its own."""
    if rollout.minibatches == 1:
        return jnp.tile(jnp.arange(rows), (rollout.epochs, 1))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _ORDERS), step)
    shuffled = [jax.random.permutation(each, rows) for each in jax.random.split(key, rollout.epochs)]
    return rearrange(jnp.stack(shuffled), "e (m r) -> (e m) r", m=rollout.minibatches)
