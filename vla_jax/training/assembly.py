"""Builds the parts of a run from its configuration."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vla_jax.data import Batch, BatchPlan, DataError, Encoder, RecordReport, Source, batches
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.lengths import measure
from vla_jax.data.loading import Reader
from vla_jax.data.mixture import Mixture
from vla_jax.data.preflight import Preflight, preflight, sample
from vla_jax.data.reference_cache import ReferenceCache
from vla_jax.data.sources import Files, corpus, open_source
from vla_jax.data.tokenizer import IMAGE_TOKEN, train_tokenizer
from vla_jax.data.world import WorldConfig
from vla_jax.interop import Model
from vla_jax.models import LlamaConfig, LlavaConfig, LoraConfig, ViTConfig, llava, lora, parameters
from vla_jax.models.compute import Compute
from vla_jax.models.parameters import Params
from vla_jax.parallel import batch_sharding, make_mesh, parameter_shardings, replicated
from vla_jax.recipes import Recipe, available, named
from vla_jax.training.loop import fit
from vla_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from vla_jax.training.reference import fill, identity
from vla_jax.training.step import Method, Trained


def recipe_of(config: ConfigDict) -> Recipe:
    """The recipe with its options."""
    return named(config.recipe, config.options[config.recipe].to_dict())


def world_of(config: ConfigDict, image_size: int) -> WorldConfig:
    """The built-in world, seeded as the run is, drawn at the size the model sees."""
    return WorldConfig(seed=config.seed, image_size=image_size, **config.world.to_dict())


def fresh_model(config: ConfigDict) -> Model:
    """A model of the configured shape with random parameters, and a tokenizer trained on its data."""
    shape = config.model
    vision = ViTConfig(**shape.vision.to_dict())
    tokenizer = train_tokenizer(
        corpus(config.data.to_dict(), world_of(config, vision.image_size)), shape.max_vocab_size
    )
    model = LlavaConfig(
        vision,
        LlamaConfig(vocab_size=len(tokenizer), **shape.language.to_dict()),
        tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        shape.feature_layer,
        # A tower without a class token gives patches alone, and every one of them is needed.
        keep_class_token=not vision.has_class_token,
    )
    params = parameters.initialise(llava.table(model), jax.random.key(config.seed))
    red, green, blue = (int(channel * 255) for channel in vision.pixel_mean)
    return Model(model, params, tokenizer, ImageProcessor.square(vision.image_size, (red, green, blue)))


def encoder_of(config: ConfigDict, model: Model, recipe: Recipe | None = None) -> Encoder:
    """How records are encoded for this model, and for what the recipe reads of them."""
    return Encoder(
        tokenizer=model.tokenizer,
        processor=model.processor,
        num_image_tokens=model.config.num_image_tokens,
        responses=recipe.responses if recipe else (),
        further_turns=recipe.further_turns if recipe else False,
        masks=recipe.masks if recipe else False,
        changes=recipe.changes if recipe else False,
        max_prompt_length=config.data.max_prompt_length,
        max_completion_length=config.data.max_completion_length,
        length_multiple=config.data.length_multiple,
        max_images=config.data.max_images,
    )


def _with_reward_head(model: Model, seed: int) -> Model:
    """The model with a freshly drawn linear layer that reads a reward."""
    config = replace(model.config, reward_head=True)
    fresh = parameters.initialise(
        {"reward": llava.table(config)["reward"]}, jax.random.fold_in(jax.random.key(seed), 2)
    )
    return replace(model, config=config, params={**model.params, **fresh}, origin="")


@dataclass(frozen=True)
class Run:
    """A run whose data has been checked, ready to train.

    Attributes:
      config: its configuration.
      model: where it starts.
      recipe: the method.
      source: what it trains on.
      encoder: how records become ids.
      plan: which records make which batch.
      report: what happened to them.
      preflight: what was found in those that were read beforehand.
    """

    config: ConfigDict
    model: Model
    recipe: Recipe
    source: Source
    encoder: Encoder
    plan: BatchPlan
    report: RecordReport
    preflight: Preflight

    def shapes(self) -> Counter[tuple[int, int]]:
        """How long prompts and responses of batches are, and of how many batches; each is a program."""
        longest = map(self.plan.longest, range(self.config.train.steps))
        limits = self.encoder.max_prompt_length, self.encoder.max_completion_length
        return Counter(self.encoder.padded(*(each or limits)) for each in longest)

    def open_batches(self, start: int, reference: ReferenceCache | None = None) -> Iterator[Batch]:
        """Batches from step `start` on, with what the reference said of them where it is kept."""
        return batches(
            self.source,
            self.encoder,
            self.plan,
            start=start,
            stop=self.config.train.steps,
            skip_bad_records=self._skips,
            report=self.report,
            threads=self.config.data.threads,
            workers=self.config.data.workers,
            reference=None if reference is None else reference.read,
        )

    def train(self, workdir: Path, title: str) -> Model:
        """Trains, or goes on training, in `workdir`; returns the trained model."""
        config, rows = self.config, self.config.train.batch_size
        mesh = make_mesh(**config.mesh.to_dict())
        placement = parameter_shardings(
            mesh, self.model.params, parameters.logical_axes(llava.table(self.model.config))
        )
        base = jax.device_put(self.model.params, placement)
        method, trained = self.method(), self._initial(base, mesh)
        reference = self.reference(method, base, mesh) if config.reference.mode == "cached" else None
        reads_base = trained.adapter is not None or config.train.frozen
        scores_base = self.recipe.needs_reference and reference is None
        optimizer = OptimizerConfig(**config.optimizer.to_dict())
        schedule = make_schedule(optimizer, config.train.steps)
        state = fit(
            method,
            method.init(trained),
            base if reads_base or scores_base else {},
            lambda start: self.open_batches(start, reference),
            steps=config.train.steps,
            batch_size=rows,
            length_of=lambda step: sum(self.plan.longest(step) or ()),
            microbatches=max(1, rows // (config.train.microbatch_size or rows)),
            workdir=workdir,
            mesh=mesh,
            checkpoint_every=config.checkpoint.every,
            keep_checkpoints=config.checkpoint.keep,
            describe=lambda step: {
                "epoch": self.plan.epoch(step),
                "learning_rate": float(schedule(step - 1)),
            },
            title=title,
        )
        changed = parameters.overlay(base, state.trained.params)
        origin = "" if state.trained.params else self.model.origin
        return replace(
            self.model, params=changed, adapter=state.trained.adapter, lora=self.low_rank, origin=origin
        )

    @property
    def low_rank(self) -> LoraConfig | None:
        """The adapter's shape; None where all parameters are trained."""
        return LoraConfig(**self.config.lora.to_dict()) if self.config.lora.rank else None

    @property
    def _skips(self) -> bool:
        return self.config.data.on_bad_record == "skip"

    def method(self) -> Method:
        """What is static in a step."""
        config = self.config
        return Method(
            self.model.config,
            self.recipe,
            make_optimizer(
                OptimizerConfig(**config.optimizer.to_dict()),
                config.train.steps,
                llava.table(self.model.config),
            ),
            config.seed,
            Compute(**config.compute.to_dict()),
            config.lora.dropout if config.lora.rank else 0.0,
        )

    def _initial(self, base: Params, mesh: Mesh) -> Trained:
        """What is trained, as it begins."""
        low_rank = self.low_rank
        if low_rank is None:
            adapter, whole = None, parameters.split(base, self.config.train.frozen)[1]
        else:
            key = jax.random.fold_in(jax.random.key(self.config.seed), 1)
            adapter = lora.initialise(llava.table(self.model.config), low_rank, key)
            adapter = jax.device_put(adapter, replicated(mesh))
            whole = parameters.split(base, whole_beside_adapter(low_rank, self.recipe))[0]
        # In float32: half precision would round updates away. A copy: the step donates what it trains, and
        # the base may be the reference still.
        return Trained(adapter, jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), whole))

    def reference(self, method: Method, base: Params, mesh: Mesh) -> ReferenceCache:
        """The reference cache, complete for the records that this run reads.

        Raises:
          StaleCacheError: where there is one of another model, of other views or of other data.
        """
        config, encoder = self.config, self.encoder
        known = identity(self.model, self.recipe, encoder, config.seed)
        cache = ReferenceCache(
            reference_folder(config, known),
            known,
            records=len(self.source),
            candidates=len(self.recipe.candidates),
            made=len(self.recipe.made),
            length=encoder.max_completion_length,
        )
        wanted = [self.plan.indices(step) for step in range(config.train.steps)]
        read = Reader(self.source, encoder)
        rows = config.train.microbatch_size or config.train.batch_size
        spread = mesh.shape["data"] * mesh.shape["fsdp"]
        fill(
            cache,
            method,
            base,
            np.concatenate(wanted),
            lambda index: read.read(index, self.report, self._skips),
            encoder,
            math.ceil(rows / spread) * spread,
            lambda batch: jax.device_put(batch, batch_sharding(mesh)),
        )
        return cache


def reference_folder(config: ConfigDict, known: Mapping[str, Any]) -> Path:
    """Where a run's reference cache lies: beside a data file, else with the base models it belongs to."""
    if config.reference.path:
        return Path(config.reference.path)
    if config.data.path:
        return Path(f"{config.data.path}.reference") / config.recipe
    world = {**config.world.to_dict(), "size": config.data.size, "flipped": config.data.flip_labels}
    digest = hashlib.sha256(json.dumps([known, world], sort_keys=True).encode()).hexdigest()
    return Path(config.base.cache) / f"reference-{config.data.source}-{digest[:10]}"


def whole_beside_adapter(low_rank: LoraConfig, recipe: Recipe) -> str:
    """Pattern of the parameters that are trained whole beside an adapter; a new reward head is one."""
    patterns = [low_rank.modules_to_save, "^reward/" if recipe.sequences else ""]
    return "|".join(f"(?:{pattern})" for pattern in patterns if pattern)


def check_data(config: ConfigDict) -> None:
    """Finds that the data can be opened, and reads records of a file as far as that needs no model.

    Raises:
      DataError: at the first bad record, unless bad records are skipped.
      ValueError: where there is no such source.
    """
    source = open_source(config.data.to_dict(), world_of(config, config.model.vision.image_size))
    if config.data.on_bad_record != "skip" and isinstance(source, Files):
        for index in sample(len(source), config.data.preflight):
            source[index]


def assemble(config: ConfigDict, model: Model, report: RecordReport | None = None) -> Run:
    """Opens the data of a run and reads the records of files once, so that bad ones are found now.

    A model that comes with an adapter starts from the two merged.

    Args:
      config: the run's.
      model: where it starts.
      report: filled with what happens to records, now and while the run trains.

    Raises:
      DataError: at the first bad record, or, where bad records are skipped, at one too many.
      ValueError: where the pattern of frozen parameters matches none, or all.
    """
    if model.adapter is not None:
        merged = lora.merge(model.params, model.adapter)
        model = replace(model, params=merged, adapter=None, lora=None, origin="")
    halves = {leaf.dtype.name for leaf in jax.tree.leaves(model.params)} & {"bfloat16", "float16"}
    if halves and not config.lora.rank:
        raise ValueError(
            f"all parameters are trained, but they are {halves.pop()}, which rounds most updates away; set "
            "lora.rank, or import the model with --dtype=float32"
        )
    recipe = recipe_of(config)
    if model.config.anyres and not recipe.tile_by_tile:
        raise ValueError(
            f"recipe {config.recipe!r} makes views of whole images, and this LLaVA-NeXT reads tiles; take "
            f"one of {', '.join(name for name in available() if named(name).tile_by_tile)}, or a LLaVA-1.5"
        )
    if config.data.max_images > 1 and not recipe.tile_by_tile:
        raise ValueError(
            f"recipe {config.recipe!r} makes views of the one image of a record; set data.max_images=1, or "
            f"take one of {', '.join(name for name in available() if named(name).tile_by_tile)}"
        )
    if recipe.sequences and not model.config.reward_head:
        model = _with_reward_head(model, config.seed)
    if config.lora.rank and config.lora.modules_to_save:
        chosen, others = parameters.split(model.params, config.lora.modules_to_save)
        if not (chosen and others):
            raise ValueError(
                f"lora.modules_to_save={config.lora.modules_to_save!r} matches "
                f"{'every' if chosen else 'no'} parameter; paths look like 'projector/fc1'"
            )
    source = open_source(config.data.to_dict(), world_of(config, model.config.vision.image_size))
    frozen, free = parameters.split(model.params, config.train.frozen)
    if config.train.frozen and not (frozen and free):
        raise ValueError(
            f"train.frozen={config.train.frozen!r} matches {'every' if frozen else 'no'} parameter; "
            "paths look like 'vision/layers/fc1'"
        )
    skips = config.data.on_bad_record == "skip"
    encoder, report = encoder_of(config, model, recipe), report if report is not None else RecordReport()
    report.most_bad = int(config.data.max_bad_fraction * len(source)) if skips else None
    # The world's records are all alike.
    most = config.data.preflight if isinstance(source, Files) else 1
    found = preflight(Reader(source, encoder), report, skips, most)
    if not report.box_origins:
        raise DataError(
            config.data.path, "whole file", "no record of it can be used", "see bad_records.jsonl"
        )
    if len(recipe.view_names) > 1 and found.without_image == len(found.prompts):
        raise ValueError(f"recipe {config.recipe!r} compares images, and no record that was read has one")
    return Run(config, model, recipe, source, encoder, _plan(config, source, encoder, report), report, found)


def _plan(config: ConfigDict, source: Source, encoder: Encoder, report: RecordReport) -> BatchPlan:
    """Which records make which batch: those of like lengths, where batches are padded to their own."""
    mixture = source.parts if isinstance(source, Mixture) else ()
    plan = BatchPlan(len(source), config.train.batch_size, config.seed, mixture)
    if not encoder.length_multiple:
        return plan
    skips = config.data.on_bad_record == "skip"
    lengths = measure(Reader(source, encoder), plan.records(config.train.steps), report, skips)
    return replace(plan, lengths=lengths)
