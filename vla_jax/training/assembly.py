"""Builds the parts of a run from its configuration."""

import re
from dataclasses import replace

import jax
from ml_collections import ConfigDict

from vla_jax.data import BatchPlan, DataError, Encoder, RecordReport, Source
from vla_jax.data.filtering import filter_named, passing
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.lengths import measure
from vla_jax.data.loading import Reader
from vla_jax.data.mixture import Mixture
from vla_jax.data.preflight import preflight, sample
from vla_jax.data.sources import Files, corpus, open_held_out, open_source
from vla_jax.data.tokenizer import IMAGE_TOKEN, train_tokenizer
from vla_jax.data.world import WorldConfig
from vla_jax.interop import Model
from vla_jax.models import LlamaConfig, LlavaConfig, LoraConfig, ViTConfig, llava, lora, parameters
from vla_jax.parallel import local_rows, make_mesh, place
from vla_jax.recipes import Recipe, available, named
from vla_jax.rewards.verifier import Verifier
from vla_jax.training.beginning import placement, recipe_of, whole_beside_adapter
from vla_jax.training.configuration import asks_reward_model
from vla_jax.training.optimizer import OptimizerConfig
from vla_jax.training.run import Run


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


def _with_value_head(model: Model, reward_model: Model | None) -> Model:
    """The model with a linear layer that expects a reward: the reward model's, or a fresh one that says 0."""
    config = replace(model.config, value_head=True)
    fresh = parameters.initialise({"value": llava.table(config)["value"]}, jax.random.key(0))
    if reward_model is not None:
        known = reward_model.params["reward"]["score"]
        if len(known) != (width := config.language.hidden_size):
            raise ValueError(
                f"the reward model is {len(known)} wide and the policy {width}: its head cannot be the first "
                "value head; take a reward model of the policy's shape"
            )
        fresh = {"value": {**fresh["value"], "score": known}}
    return replace(model, config=config, params={**model.params, **fresh}, origin="")


def _check_reward_model(model: Model, reward_model: Model | None, asked: bool) -> None:
    """Refuses a reward model that cannot judge what the policy says.

    Raises:
      ValueError: says what is wrong with it.
    """
    if reward_model is None:
        if asked:
            raise ValueError(
                "this run asks a reward model; set rewards.model to one, or rewards.config to the config "
                "file of a run that makes one"
            )
        return
    if not reward_model.config.reward_head:
        raise ValueError(
            "rewards.model has no reward head; train one with a config like configs/world_reward_model.py"
        )
    if reward_model.tokenizer.get_vocab() != model.tokenizer.get_vocab():
        raise ValueError("the reward model has another tokenizer than the policy; take one of the same base")
    if reward_model.processor != model.processor:
        raise ValueError("the reward model prepares images otherwise than the policy; take one of its base")


def check_data(config: ConfigDict) -> None:
    """Finds that the data can be opened, and reads records of a file as far as that needs no model.

    Raises:
      DataError: at the first bad record, unless bad records are skipped.
      ValueError: where there is no such source, or it has fewer records than data.limit.
    """
    source = open_source(config.data.to_dict(), world_of(config, config.model.vision.image_size))
    chosen = plan_of(config, source).chosen
    if config.data.on_bad_record != "skip" and isinstance(source, Files):
        for index in sample(chosen, config.data.preflight):
            source[index]


def assemble(
    config: ConfigDict,
    model: Model,
    report: RecordReport | None = None,
    reward_model: Model | None = None,
    verifier: Verifier | None = None,
) -> Run:
    """Opens the data of a run and reads the records of files once, so that bad ones are found now.

    A model that comes with an adapter starts from the two merged.

    Args:
      config: the run's.
      model: where it starts.
      report: filled with what happens to records, now and while the run trains.
      reward_model: what judges responses that the method samples.
      verifier: what judges their words.

    Raises:
      DataError: at the first bad record, or, where bad records are skipped, at one too many.
      ValueError: where the pattern of frozen parameters matches none, or all.
    """
    model, reward_model = _merged(model), reward_model and _merged(reward_model)
    recipe = recipe_of(config)
    if recipe.sequences and not model.config.reward_head:
        model = _with_reward_head(model, config.seed)
    _check_reward_model(model, reward_model, asks_reward_model(config, recipe))
    if recipe.values:
        model = _with_value_head(model, reward_model)
    check_model(config, model, recipe)
    mesh = make_mesh(**config.mesh.to_dict())
    local_rows(mesh, config.train.batch_size)
    if jax.process_count() == 1:
        places = placement(config, mesh, model.config, model.params)
        model = replace(model, params=place(model.params, places))
    data, world = config.data.to_dict(), world_of(config, model.config.vision.image_size)
    source = open_source(data, world)
    watched = config.evaluation
    held_out = open_held_out(data, world, watched.path, watched.records) if watched.every else None
    skips = config.data.on_bad_record == "skip"
    encoder, report = encoder_of(config, model, recipe), report if report is not None else RecordReport()
    plan = plan_of(config, source)
    report.most_bad = int(config.data.max_bad_fraction * len(plan.chosen)) if skips else None
    # The world's records are all alike.
    most = config.data.preflight if isinstance(source, Files) else 1
    found = preflight(Reader(source, encoder), plan.chosen, report, skips, most)
    if not report.box_origins:
        raise DataError(
            config.data.path, "whole file", "no record of it can be used", "see bad_records.jsonl"
        )
    if len(recipe.view_names) > 1 and found.without_image == len(found.prompts):
        raise ValueError(f"recipe {config.recipe!r} compares images, and no record that was read has one")
    if encoder.length_multiple:
        measured = plan.records(config.train.steps)
        plan = replace(plan, lengths=measure(Reader(source, encoder), measured, report, skips))
    return Run(
        config, mesh, model, recipe, source, held_out, encoder, plan, report, found, reward_model, verifier
    )


def _merged(model: Model) -> Model:
    """The model with its adapter, if any, added to its parameters."""
    if model.adapter is None:
        return model
    return replace(model, params=lora.merge(model.params, model.adapter), adapter=None, lora=None, origin="")


def check_model(config: ConfigDict, model: Model, recipe: Recipe) -> None:
    """Refuses a model that the recipe cannot train as it is asked to.

    Raises:
      ValueError: names the field and what to do.
    """
    halves = {leaf.dtype.name for leaf in jax.tree.leaves(model.params)} & {"bfloat16", "float16"}
    if halves and not config.lora.rank:
        raise ValueError(
            f"all parameters are trained, but they are {halves.pop()}, which rounds most updates away; set "
            "lora.rank, or import the model with --dtype=float32"
        )
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
    if config.lora.rank and config.lora.modules_to_save:
        chosen, others = parameters.split(model.params, config.lora.modules_to_save)
        if not (chosen and others):
            raise ValueError(
                f"lora.modules_to_save={config.lora.modules_to_save!r} matches "
                f"{'every' if chosen else 'no'} parameter; paths look like 'projector/fc1'"
            )
    frozen, free = parameters.split(model.params, config.train.frozen)
    if config.train.frozen and not (frozen and free):
        raise ValueError(
            f"train.frozen={config.train.frozen!r} matches {'every' if frozen else 'no'} parameter; "
            "paths look like 'vision/layers/fc1'"
        )
    trained = _trained_paths(config, model, recipe)
    for pattern, name in OptimizerConfig(**config.optimizer.to_dict()).own_rates().items():
        if not any(re.search(pattern, f"params/{path}") for path in trained):
            raise ValueError(
                f"optimizer.{name} is set, and nothing of that part is trained whole; leave it at 0, or see "
                "lora.modules_to_save and train.frozen"
            )
    asked = config.data.max_prompt_length + config.data.max_completion_length
    if model.context and asked > model.context:
        raise ValueError(
            f"data.max_prompt_length + data.max_completion_length is {asked}, and the model was made for "
            f"{model.context} tokens; lower them"
        )


def _trained_paths(config: ConfigDict, model: Model, recipe: Recipe) -> list[str]:
    """Paths of the parameters that are trained whole."""
    if config.lora.rank:
        pattern = whole_beside_adapter(LoraConfig(**config.lora.to_dict()), recipe)
        whole = parameters.split(model.params, pattern)[0]
    else:
        whole = parameters.split(model.params, config.train.frozen)[1]
    leaves = jax.tree_util.tree_leaves_with_path(whole)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]


def plan_of(config: ConfigDict, source: Source) -> BatchPlan:
    """Which records make which batch, as long as nobody knows how long they are."""
    mixture = source.parts if isinstance(source, Mixture) else ()
    kept = None
    if name := config.data.filter:
        kept = passing(source, filter_named(name), name, config.data.path)
    return BatchPlan(
        len(source), config.train.batch_size, config.seed, mixture, passing=kept, limit=config.data.limit
    )
