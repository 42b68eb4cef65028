"""A run whose parts are there: from its first batch to its trained model."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int
from ml_collections import ConfigDict

from vla_jax.data import Batch, BatchPlan, DataError, Encoder, Record, RecordReport, Source, batches
from vla_jax.data.batches import collate
from vla_jax.data.loading import Reader
from vla_jax.data.preflight import Preflight
from vla_jax.data.reference_cache import ReferenceCache
from vla_jax.interop import Model
from vla_jax.models import parameters
from vla_jax.models.parameters import Params
from vla_jax.parallel import (
    gather,
    is_first,
    local_rows,
    make_mesh,
    place,
    place_batch,
    replicated,
    rows_apart,
    wait_for_all,
)
from vla_jax.recipes import Recipe
from vla_jax.rewards import Judge
from vla_jax.rewards.verifier import Verifier
from vla_jax.training.alarms import AlarmConfig, Watch
from vla_jax.training.base_identity import fingerprint
from vla_jax.training.beginning import (
    low_rank_of,
    method_of,
    microbatches_of,
    placement,
    reads_base,
    trained_at_first,
    updates_of,
)
from vla_jax.training.checkpoints import Checkpoints
from vla_jax.training.collecting import Collector
from vla_jax.training.configuration import plain
from vla_jax.training.held_out import HeldOut
from vla_jax.training.judging import judge_of
from vla_jax.training.loop import LoopConfig, fit
from vla_jax.training.optimizer import OptimizerConfig, make_schedule
from vla_jax.training.profile import ProfileConfig
from vla_jax.training.reference import fill, identity
from vla_jax.training.similarity import similarity_of
from vla_jax.training.step import Method, Trained
from vla_jax.training.tracking import METRICS, Silent, Tracker, WandbConfig, read_metrics


@dataclass(frozen=True)
class Run:
    """A run whose data has been checked, ready to train.

    Attributes:
      config: its configuration.
      mesh: the devices.
      model: where it starts; its parameters lie on the mesh or, of several processes, with each of them.
      recipe: the method.
      source: what it trains on.
      reward_model: what judges responses that a method samples; None where it asks none.
      verifier: what judges their words; None where it asks none.
      held_out: what it evaluates on while it trains; None where it does not.
      encoder: how records become ids.
      plan: which records make which batch.
      report: what happened to them.
      preflight: what was found in those that were read beforehand.
    """

    config: ConfigDict
    mesh: Mesh
    model: Model
    recipe: Recipe
    source: Source
    held_out: Source | None
    encoder: Encoder
    plan: BatchPlan
    report: RecordReport
    preflight: Preflight
    reward_model: Model | None = None
    verifier: Verifier | None = None

    def shapes(self) -> Counter[tuple[int, int]]:
        """How long prompts and responses of batches are, and of how many batches; each is a program."""
        longest = map(self.plan.longest, range(self.config.train.steps))
        limits = self.encoder.max_prompt_length, self.encoder.max_completion_length
        return Counter(self.encoder.padded(*(each or limits)) for each in longest)

    def open_batches(
        self,
        start: int,
        stop: int | None = None,
        reference: ReferenceCache | None = None,
        part: Int[np.ndarray, " p"] | None = None,
    ) -> Iterator[Batch]:
        """Batches of steps `start` to `stop`, with what the reference said of them where it is kept.

        Args:
          start: the first step.
          stop: the step after the last; None goes to the end of the run.
          reference: the cache.
          part: which of their rows; None gives all.
        """
        stop = self.config.train.steps if stop is None else stop
        return batches(
            self.source,
            self.encoder,
            self.plan,
            start=start,
            stop=stop,
            skip_bad_records=self.skips,
            report=self.report,
            threads=self.config.data.threads,
            # One batch is there before a process has started.
            workers=self.config.data.workers if stop - start > 1 else 0,
            reference=None if reference is None else reference.read,
            part=part,
        )

    def train(self, workdir: Path, title: str) -> Model:
        """Trains, or goes on training, in `workdir`; returns the trained model."""
        config = self.config
        base = self.placed_base()
        method, trained = self.method(), self._initial(base)
        reference = self.reference(method, base) if config.reference.mode == "cached" else None
        updates = updates_of(self.recipe)
        schedule = make_schedule(OptimizerConfig(**config.optimizer.to_dict()), config.train.steps * updates)
        rows = local_rows(self.mesh, config.train.batch_size)
        with judge_of(config, workdir) as judge:
            state = fit(
                method,
                method.init(trained),
                base if reads_base(config, self.recipe) else {},
                lambda start, stop: self.open_batches(start, stop, reference, rows),
                self._loop_config(),
                mesh=self.mesh,
                checkpoints=Checkpoints(
                    workdir / "checkpoints",
                    config.checkpoint.keep,
                    fingerprint(base, self.model.config.to_dict()),
                    config.checkpoint.best_metric,
                    config.checkpoint.greater_is_better,
                ),
                open_tracker=lambda start: self._tracker(workdir, start, title),
                length_of=lambda step: sum(self.plan.longest(step) or ()),
                describe=lambda step: {
                    "epoch": self.plan.epoch(step),
                    "learning_rate": float(schedule((step - 1) * updates)),
                },
                evaluate=HeldOut(replace(method, dropout=0.0), base, self._held_out_batches),
                profile_folder=workdir / "profile",
                collector=self.collector(replace(method, dropout=0.0), self._records, workdir, judge),
                open_watch=lambda start: self._watch(workdir, start),
            )
        trained = gather(state.trained)
        origin = "" if trained.params else self.model.origin
        changed = parameters.overlay(self.model.params, trained.params)
        changed = {name: part for name, part in changed.items() if name != "value"}
        return replace(
            self.model,
            config=replace(self.model.config, value_head=False),
            params=changed,
            adapter=trained.adapter,
            lora=low_rank_of(config),
            origin=origin,
        )

    def held_out_metrics(self) -> Mapping[str, float]:
        """The recipe's metrics on the held-out records, of the model that this run would start from.

        Named as those of an evaluation while training; none where the run has no held-out records.
        """
        base = self.placed_base()
        method = replace(self.method(), dropout=0.0)
        with jax.set_mesh(self.mesh):
            state = method.init(self._initial(base))
            return HeldOut(method, base, self._held_out_batches)(state)

    def on_local_devices(self, model: Model) -> Model:
        """A model that this process can use alone: as it is or, of several processes, on its own devices."""
        if jax.process_count() == 1:
            return model
        local = make_mesh(data=1, fsdp=-1, devices=jax.local_devices())
        params = place(model.params, placement(self.config, local, model.config, model.params))
        adapter = model.adapter
        if adapter is not None:
            adapter = place(adapter, jax.tree.map(lambda _: replicated(local), adapter))
        return replace(model, params=params, adapter=adapter)

    def placed_base(self) -> Params:
        """Parameters of the model that training starts from, on the mesh."""
        return place(self.model.params, self._placement)

    @property
    def skips(self) -> bool:
        """Whether bad records are left out."""
        return self.config.data.on_bad_record == "skip"

    @property
    def _placement(self) -> Any:
        return placement(self.config, self.mesh, self.model.config, self.model.params)

    def _loop_config(self) -> LoopConfig:
        config, rollout = self.config, self.recipe.rollout
        return LoopConfig(
            steps=config.train.steps,
            batch_size=config.train.batch_size,
            microbatches=microbatches_of(config, self.mesh, rollout.minibatches if rollout else 1),
            checkpoint_every=config.checkpoint.every,
            evaluate_every=config.evaluation.every,
            skip_nonfinite=config.train.on_nonfinite == "skip",
            profile=ProfileConfig(**config.profile.to_dict()),
        )

    def _tracker(self, workdir: Path, start: int, title: str) -> Tracker:
        if not is_first():
            return Silent()
        config = self.config
        wandb = WandbConfig(**config.tracking.to_dict())
        return Tracker(
            workdir, start, config.train.steps, config.train.batch_size, title, wandb, plain(config)
        )

    def _watch(self, workdir: Path, start: int) -> Watch:
        rows = read_metrics(workdir / METRICS) if self.recipe.rollout is not None else []
        config = AlarmConfig(**self.config.alarms.to_dict())
        return Watch(config, [row for row in rows if row["step"] <= start])

    def collector(
        self,
        method: Method,
        records: Callable[[int], Sequence[Record | None]],
        workdir: Path,
        judge: Judge | None,
    ) -> Collector | None:
        """What makes the responses that the method learns from; None where the data has them.

        Args:
          method: what a step does, without dropout.
          records: step -> the records of its rows.
          workdir: what the method finds out before its first round is kept here.
          judge: what compares responses in words, where the method asks one.
        """
        if self.recipe.rollout is None:
            return None
        return Collector(
            method,
            self.model,
            self.mesh,
            records,
            self.reward_model,
            judge,
            self.verifier,
            similarity_of(self.config) if self.recipe.rollout.similarity else None,
            self.config.data.max_completion_length,
            workdir / "prepared.json",
        )

    def _records(self, step: int) -> list[Record | None]:
        """The records of a step's rows."""
        read: list[Record | None] = []
        for index in self.plan.indices(step).tolist():
            try:
                read.append(self.source[index])
            except DataError:
                # The row is counted where it is encoded.
                read.append(None)
        return read

    def local_method(self) -> Method:
        """What is static in a step, traced without the mesh."""
        method = self.method()
        return replace(method, compute=replace(method.compute, target=None))

    def method(self) -> Method:
        """What is static in a step; to be traced under `jax.set_mesh(mesh)`."""
        return method_of(self.config, self.model.config, self.recipe, jax.default_backend(), self.mesh)

    def _initial(self, base: Params) -> Trained:
        """What is trained, as it begins."""
        trained = trained_at_first(self.config, self.model.config, self.recipe, base)
        replicate = jax.tree.map(lambda _: replicated(self.mesh), trained.adapter)
        return trained._replace(adapter=place(trained.adapter, replicate))

    def reference(self, method: Method, base: Params) -> ReferenceCache:
        """The reference cache, complete for the records that this run reads.

        Of several processes the first writes it; all must see the folder where it lies.

        Raises:
          StaleCacheError: where there is one of another model, of other views or of other data.
        """
        config, encoder = self.config, self.encoder
        known = identity(self.model, self.recipe, encoder, config.seed)
        folder = reference_folder(config, known)

        def opened() -> ReferenceCache:
            return ReferenceCache(
                folder,
                known,
                records=len(self.source),
                candidates=len(self.recipe.candidates),
                made=len(self.recipe.made),
                length=encoder.max_completion_length,
            )

        if is_first():
            cache = opened()
        wait_for_all("reference cache begun")
        if not is_first():
            cache = opened()
        wanted = [self.plan.indices(step) for step in range(config.train.steps)]
        read = Reader(self.source, encoder)
        rows = config.train.microbatch_size or config.train.batch_size
        spread = rows_apart(self.mesh)
        fill(
            cache,
            method,
            base,
            np.concatenate(wanted),
            lambda index: read.read(index, self.report, self.skips),
            encoder,
            math.ceil(rows / spread) * spread,
            self.mesh,
        )
        wait_for_all("reference cache complete")
        return cache if is_first() else opened()

    def _held_out_batches(self) -> Iterator[Batch]:
        """The held-out records once, in batches on the mesh; the last is filled up with rows of weight 0."""
        if self.held_out is None:
            return
        rows, limit = self.config.train.batch_size, self.config.evaluation.records
        part = local_rows(self.mesh, rows)
        read, count = Reader(self.held_out, self.encoder), min(limit, len(self.held_out))
        for start in range(0, count, rows):
            encoded = [
                read.read(index, self.report, self.skips) if index < count else None
                for index in (start + part).tolist()
            ]
            # Padded to the limits: every batch has one shape, on every process.
            limits = self.encoder.max_prompt_length, self.encoder.max_completion_length
            yield place_batch(self.mesh, collate(encoded, self.encoder, limits), part, rows)


def reference_folder(config: ConfigDict, known: Mapping[str, Any]) -> Path:
    """Where a run's reference cache lies: beside a data file, else with the base models it belongs to."""
    if config.reference.path:
        return Path(config.reference.path)
    if config.data.path:
        return Path(f"{config.data.path}.reference") / config.recipe
    world = {**config.world.to_dict(), "size": config.data.size, "flipped": config.data.flip_labels}
    digest = hashlib.sha256(json.dumps([known, world], sort_keys=True).encode()).hexdigest()
    return Path(config.base.cache) / f"reference-{config.data.source}-{digest[:10]}"
