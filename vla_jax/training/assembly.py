"""Builds the parts of a run from its configuration."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vla_jax.data import Batch, BatchPlan, DataError, Encoder, RecordReport, Source, batches
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.sources import corpus, open_source
from vla_jax.data.tokenizer import IMAGE_TOKEN, train_tokenizer
from vla_jax.data.world import WorldConfig
from vla_jax.interop import Model
from vla_jax.models import LlamaConfig, LlavaConfig, LoraConfig, ViTConfig, llava, lora, parameters
from vla_jax.parallel import make_mesh, parameter_shardings, replicated
from vla_jax.recipes import Recipe, named
from vla_jax.training.loop import fit
from vla_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from vla_jax.training.step import Method

# Records of a file that are read whole before the first step.
_CHECKED_RECORDS = 2000


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
        max_prompt_length=config.data.max_prompt_length,
        max_completion_length=config.data.max_completion_length,
    )


@dataclass(frozen=True)
class Run:
    """A run whose data has been checked, ready to train.

    Attributes:
      config: its configuration.
      model: where it starts.
      recipe: the method.
      source: what it trains on.
      encoder: how records become ids.
      report: what happened to them.
    """

    config: ConfigDict
    model: Model
    recipe: Recipe
    source: Source
    encoder: Encoder
    report: RecordReport

    @property
    def plan(self) -> BatchPlan:
        """Which records make which batch."""
        return BatchPlan(len(self.source), self.config.train.batch_size, self.config.seed)

    def open_batches(self, start: int) -> Iterator[Batch]:
        """Batches from step `start` on."""
        return batches(
            self.source,
            self.encoder,
            self.plan,
            start=start,
            stop=self.config.train.steps,
            skip_bad_records=self.config.data.on_bad_record == "skip",
            report=self.report,
            threads=self.config.data.threads,
        )

    def train(self, workdir: Path, title: str) -> Model:
        """Trains, or goes on training, in `workdir`; returns the trained model."""
        config, base = self.config, self.model.params
        table = llava.table(self.model.config)
        full, rows = config.lora.rank == 0, config.train.batch_size
        low_rank = None if full else LoraConfig(**config.lora.to_dict())
        optimizer = OptimizerConfig(**config.optimizer.to_dict())
        mesh = make_mesh(**config.mesh.to_dict())
        placement = parameter_shardings(mesh, base, parameters.logical_axes(table))
        placed = jax.device_put(base, placement)
        frozen, free = parameters.split(placed, config.train.frozen)
        method = Method(
            self.model.config,
            self.recipe,
            make_optimizer(optimizer, config.train.steps, table),
            full,
            config.seed,
            bool(frozen),
        )
        if low_rank is None:
            # A copy: the step donates what it trains, and the base may be the reference still.
            trained = jax.tree.map(jnp.copy, free)
        else:
            key = jax.random.fold_in(jax.random.key(config.seed), 1)
            trained = jax.device_put(lora.initialise(table, low_rank, key), replicated(mesh))
        schedule = make_schedule(optimizer, config.train.steps)
        state = fit(
            method,
            method.init(trained),
            placed if method.needs_base else {},
            self.open_batches,
            steps=config.train.steps,
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
        if low_rank is None:
            return replace(self.model, params=parameters.overlay(placed, state.trained), origin="")
        return replace(self.model, params=base, adapter=state.trained, lora=low_rank)


def assemble(config: ConfigDict, model: Model) -> Run:
    """Opens the data of a run and reads the records of files once, so that bad ones are found now.

    A model that comes with an adapter starts from the two merged.

    Raises:
      DataError: at the first bad record, or, where bad records are skipped, if no good one is left.
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
    if model.config.anyres:
        raise ValueError(
            "a LLaVA-NeXT cannot be trained yet: views of an image in tiles are still to come; evaluate, "
            "generate and convert do work"
        )
    recipe = recipe_of(config)
    source = open_source(config.data.to_dict(), world_of(config, model.config.vision.image_size))
    frozen, free = parameters.split(model.params, config.train.frozen)
    if config.train.frozen and not (frozen and free):
        raise ValueError(
            f"train.frozen={config.train.frozen!r} matches {'every' if frozen else 'no'} parameter; "
            "paths look like 'vision/layers/fc1'"
        )
    encoder, report = encoder_of(config, model, recipe), RecordReport()
    for error in getattr(source, "bad", ()):
        report.skipped(error)
    checked = min(len(source), _CHECKED_RECORDS if hasattr(source, "bad") else 1)
    for index in range(checked):
        try:
            report.saw(encoder.encode(source[index], getattr(source, "name", config.data.source)))
        except DataError as error:
            if config.data.on_bad_record != "skip":
                raise
            report.skipped(error)
    if not report.box_origins:
        raise DataError(
            config.data.path, "whole file", "no record of it can be used", "see bad_records.jsonl"
        )
    return Run(config, model, recipe, source, encoder, report)
