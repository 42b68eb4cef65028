"""Lets a method make the responses that it learns from, with the policy as it is now."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from vla_jax.data import Batch, Record
from vla_jax.interop import Model
from vla_jax.models.parameters import Params
from vla_jax.parallel import batch_sharding, gather, is_first, place, replicated, wait_for_all
from vla_jax.recipes import Collected, Policy
from vla_jax.rewards import Judge, Similarity
from vla_jax.rewards.verifier import Verified, Verifier
from vla_jax.rollout import Sampled, Sampling, Speaker, sample
from vla_jax.scoring import encode_views, score
from vla_jax.training.step import Method, TrainState, make_views, prompted_of

# Set apart from the keys of views, of dropout and of orders.
_ROUND = 0x5A3D


class Collector:
    """What `fit` calls before each step of a method that rolls out.

    Args:
      method: what a step does; dropout is off here.
      model: the policy's tokenizer and the tokens that end an answer.
      mesh: the devices.
      records: step -> the records of its rows, in order; None where one is bad.
      reward_model: what judges responses; None without one. It has the policy's tokenizer and image
        processor.
      judge: what compares responses in words; None without one.
      verifier: what judges their words; None without one.
      similarity: how alike two texts are; None where the method does not ask.
      longest: tokens of the longest response that is sampled.
      file: what `prepare` found is kept here.
    """

    def __init__(
        self,
        method: Method,
        model: Model,
        mesh: Mesh,
        records: Callable[[int], Sequence[Record | None]],
        reward_model: Model | None,
        judge: Judge | None,
        verifier: Verifier | None,
        similarity: Similarity | None,
        longest: int,
        file: Path,
    ):
        self._method, self._model, self._mesh, self._records = method, model, mesh, records
        self._judge, self._verifier, self._similarity = judge, verifier, similarity
        self._longest, self._file = longest, file
        self._scores, self._divergences = jax.jit(method.scores), jax.jit(method.divergences)
        self._features = jax.jit(self._seen, out_shardings=batch_sharding(mesh))
        self._rewards: Callable[[Batch], Float[np.ndarray, "b c"]] | None = None
        if reward_model is not None:
            rewarder = _Rewarder(method, reward_model, mesh)
            self._rewards = lambda batch: rewarder(self._placed(batch))
        self._prepared: dict[str, float] | None = None

    def __call__(self, state: TrainState, base: Params, batch: Batch) -> Collected:
        """One round: a batch of prompts on the mesh -> what it has become."""
        rollout = self._method.recipe.rollout
        assert rollout is not None and self._prepared is not None
        collected = rollout.collect(self._policy(state, base, self._prepared), batch)
        return collected._replace(batch=self._placed(collected.batch))

    def prepare(self, state: TrainState, base: Params, batches: Callable[[], Iterable[Batch]]) -> None:
        """What the method finds out before its first round; a run that goes on reads what it found then."""
        rollout = self._method.recipe.rollout
        assert rollout is not None
        if rollout.prepare is None:
            self._prepared = {}
            return
        if not self._file.is_file():
            # Batches begin with the first round's, whenever this is done.
            policy = self._policy(state.replace(step=jnp.int32(0)), base, {})
            found = dict(rollout.prepare(policy, batches()))
            if is_first():
                partial_file = self._file.with_name(f".{self._file.name}")
                partial_file.write_text(json.dumps(found))
                os.replace(partial_file, self._file)
            wait_for_all("prepared")
        self._prepared = json.loads(self._file.read_text())

    def _policy(self, state: TrainState, base: Params, prepared: dict[str, float]) -> Policy:
        step = int(state.step)
        return Policy(
            key=jax.random.fold_in(jax.random.fold_in(jax.random.key(self._method.seed), _ROUND), step),
            sample=partial(self._sample, state, base),
            scores=lambda batch: self._scores(state.trained, base, self._placed(batch)),
            end_ids=self._model.end_ids,
            texts=self._texts,
            divergences=lambda batch: self._divergences(state.trained, base, self._placed(batch)),
            records=lambda later=0: self._records(step + later),
            reward=self._rewards,
            judge=self._judge,
            verify=None if self._verifier is None else self._verify,
            speaker=self._speaker(state, base),
            similarity=self._similarity,
            prepared=prepared,
        )

    def _speaker(self, state: TrainState, base: Params) -> Speaker:
        params, adapter = self._method.policy(state.trained, base)
        return Speaker(
            self._method.model,
            params,
            adapter,
            self._model.tokenizer,
            self._model.end_ids,
            partial(self._features, state, base),
            self._method.compute,
        )

    def _seen(self, state: TrainState, base: Params, batch: Batch) -> Float[Array, "b n d"]:
        """Image tokens of the first view, as the policy sees them."""
        views = make_views(self._method.recipe, batch, self._method.seed)[:, :1]
        layout = None if batch.layout is None else jnp.asarray(batch.layout)
        policy = self._method.policy(state.trained, base)
        return encode_views(self._method.model, policy, views, layout, self._method.compute)[:, 0]

    def _sample(
        self, state: TrainState, base: Params, batch: Batch, count: int, temperature: float, key: Array
    ) -> Sampled:
        params, adapter = self._method.policy(state.trained, base)
        return sample(
            params,
            adapter,
            self._method.model,
            self._features(state, base, batch),
            jnp.asarray(batch.prefix_tokens),
            jnp.asarray(batch.prefix_mask),
            Sampling(self._longest, self._model.end_ids, temperature),
            key,
            count=count,
            compute=self._method.compute,
        )

    def _verify(self, batch: Batch, every_token: bool = False) -> Verified:
        """What the verifier says; every process asks its own about all rows."""
        assert self._verifier is not None
        images, tokens, mask = gather((batch.images, batch.response_tokens, batch.response_mask))
        images = np.asarray(images) if batch.layout is None else np.asarray(images)[:, 0]
        return self._verifier.verify(images, self._model.tokenizer, tokens, mask, every_token)

    def _texts(self, tokens: Int[np.ndarray, "b r t"], mask: Bool[np.ndarray, "b r t"]) -> list[list[str]]:
        ids, kept = (np.asarray(array) for array in gather((tokens, mask)))
        decode = partial(self._model.tokenizer.decode, skip_special_tokens=True)
        return [
            [decode(response[keep]).strip() for response, keep in zip(*row, strict=True)]
            for row in zip(ids, kept, strict=True)
        ]

    def _placed(self, batch: Batch) -> Batch:
        """The batch with every array spread by its rows; every process has what lies on none yet."""
        rows = batch_sharding(self._mesh)
        return jax.tree.map(lambda array: place(array, rows), batch)


class _Rewarder:
    """A reward model on batches of the policy's tokens."""

    def __init__(self, method: Method, model: Model, mesh: Mesh):
        self._params = place(model.params, jax.tree.map(lambda _: replicated(mesh), model.params))
        self._config, self._method = model.config, method
        self._said = jax.jit(self._say, out_shardings=replicated(mesh))

    def __call__(self, batch: Batch) -> Float[np.ndarray, "b c"]:
        """One number for every candidate."""
        return np.asarray(self._said(self._params, batch))

    def _say(self, params: Params, batch: Batch) -> Float[Array, "b c"]:
        recipe, compute = self._method.recipe, self._method.compute
        views = make_views(recipe, batch, self._method.seed)[:, : recipe.candidate_views]
        layout = None if batch.layout is None else jnp.asarray(batch.layout)
        model: Any = (params, None)
        features = encode_views(self._config, model, views, layout, compute)
        said = score(
            self._config,
            model,
            features,
            prompted_of(batch),
            recipe.candidates,
            sequences=True,
            compute=compute,
        ).sequences
        assert said is not None
        return said
