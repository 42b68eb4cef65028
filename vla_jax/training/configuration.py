"""The configuration: every field with its default. A config file starts from here and changes what it must.

`recipe` names a file of `vla_jax/recipes`; `options.<recipe>.*` are that method's own settings. Setting an
option of another recipe is an error, not a silence.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ml_collections import ConfigDict

from vla_jax.data.sources import MIXTURE, PREFERENCE_FOLDER, WORLDS, check_choices
from vla_jax.data.world import WorldConfig
from vla_jax.models import LlamaConfig, LoraConfig, ViTConfig
from vla_jax.models.compute import Compute
from vla_jax.parallel import RULES, check_rules
from vla_jax.recipes import Recipe, available, default_options, named
from vla_jax.rewards import HOW_ASKED, JudgeConfig
from vla_jax.rewards.entities import SYNONYMS
from vla_jax.training.alarms import AlarmConfig
from vla_jax.training.optimizer import OptimizerConfig
from vla_jax.training.profile import ProfileConfig
from vla_jax.training.reference import MODES
from vla_jax.training.tracking import WandbConfig


def default_config() -> ConfigDict:
    """All fields, and no others can be set. See the comments for those whose names do not say enough."""
    config = ConfigDict(
        {
            # Of parameters, data order, random views, and of the built-in world.
            "seed": 0,
            "recipe": "sft",
            "options": {name: default_options(name) for name in available()},
            # Where training starts. `model`: a model folder or the workdir of a finished run. Else `config`:
            # the config file of a run that makes one; it is run first, once, and kept under `cache`; the
            # sections that it should `inherit` are taken from here.
            # Neither: a fresh model of the shape below.
            "base": {
                "model": "",
                "config": "",
                "inherit": ("seed", "model", "world"),
                "cache": "runs/base",
            },
            # What responses that a method samples are worth: a reward model, as a folder or as the config
            # file of a run that makes one (once, under base.cache, with these sections taken from here), and
            # a judge that compares two of them, which may be that reward model: see docs/judges.md.
            "rewards": {
                "model": "",
                "config": "",
                "inherit": ("seed", "model", "world"),
                "judge": asdict(JudgeConfig()),
                # A sentence-transformers folder that compares texts; "" compares their words instead.
                "similarity": "",
            },
            # When sampled answers count as collapsed, and what happens then: docs/online.md.
            "alarms": asdict(AlarmConfig()),
            # What judges single words of sampled responses: a CLIP or SigLIP as a folder, or the config file
            # of a pretraining (training/contrastive.py) that gives the run's own vision tower a text half:
            # once, under base.cache, with these sections taken from here.
            "verifier": {
                "model": "",
                "config": "",
                "inherit": ("seed",),
                # The words that it judges: world, shipped (COCO's and LVIS's labels), or a file of lines
                # `name, synonym, synonym`; "" takes those that suit the data.
                "entities": "",
                "synonyms": "nouns",  # of shipped names, from WordNet: none, nouns, or all parts of speech
                "normalize": True,  # a score is a cosine times `scale`; else a product of plain embeddings
                "scale": 100.0,
                "template": "{}",  # how a word is put to the text tower
            },
            "model": {
                "vision": asdict(_SMALL_VISION),
                # The tokenizer decides the size of the vocabulary.
                "language": {k: v for k, v in asdict(_SMALL_LANGUAGE).items() if k != "vocab_size"},
                "feature_layer": -1,
                "max_vocab_size": 512,
            },
            # Rank 0 trains all parameters, with a frozen copy as the reference.
            "lora": {**asdict(LoraConfig()), "rank": 0},
            "world": {k: v for k, v in asdict(WorldConfig()).items() if k not in ("seed", "image_size")},
            "data": {
                # world_supervised, world_preference, or the format of the file at `path`: see data/formats/.
                "source": "world_supervised",
                "path": "",  # file or folder as published, or tfds:NAME[:SPLIT]
                # source=mixture: files, each {"source": ..., "path": ..., "images": ..., "weight": ...}. The
                # weight is its share of the places in batches, by default its number of records.
                "mixture": (),
                "images": "",  # where its image paths start; by default where the file lies
                "max_images": 1,  # of a record; one with more is bad
                # module:function of a record (data/schema.py) that says whether to train on it; "" keeps all.
                "filter": "",
                # Records to train on, of those that pass, chosen by the seed; a larger number keeps those of
                # a smaller one, and 0 takes all.
                "limit": 0,
                "box_format": "xyxy_pixels",  # preference_folder: xyxy_pixels, xywh_pixels or xyxy_normalised
                "on_bad_record": "error",  # error, or skip: counted and listed in bad_records.jsonl
                "max_bad_fraction": 0.01,  # of all records; more that are skipped stop the run
                "preflight": 2000,  # records of a file that are read before the first step; 0 reads all
                "size": 100_000,  # the world's records
                "flip_labels": False,  # world_preference: the shuffled-labels control
                "max_prompt_length": 52,  # tokens, the image's counted; a longer prompt is an error
                "max_completion_length": 76,  # tokens; a longer completion is cut and counted
                # A batch is padded to the next multiple of this, up to the limits; 0 always pads to them.
                "length_multiple": 0,
                "workers": 0,  # processes that prepare batches; 0 does so in the trainer's own
                "threads": 1,  # batches prepared at a time, in each of them
            },
            # `mode`: online scores the frozen reference in every step; cached does so once a record and keeps
            # it, in `path` or, by default, beside the data.
            "reference": {"mode": "online", "path": ""},
            # What is compiled for follows from the mesh.
            "compute": {k: v for k, v in asdict(Compute()).items() if k != "target"},
            "train": {
                "steps": 1000,
                "batch_size": 32,
                # Most rows that go through the model at once, though at least one of every device's; 0 takes
                # the whole batch.
                "microbatch_size": 0,
                "frozen": "",  # regular expression: parameters whose path matches are left as they are
                # A metric that is not finite: stop, the last checkpoint stands; or skip the step, which is
                # logged as skipped_steps, and stop after ten in a row.
                "on_nonfinite": "stop",
            },
            "optimizer": asdict(OptimizerConfig()),
            # Sizes of the mesh axes; -1 takes the devices that are left.
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            # Logical axis of the parameters' tables -> mesh axis; "" keeps it whole.
            "sharding": dict(RULES),
            # The last few are kept and, of a run that evaluates, the one with the best value of a metric
            # ("eval_loss"): the greatest or the smallest.
            "checkpoint": {"every": 100, "keep": 2, "best_metric": "", "greater_is_better": False},
            "tracking": asdict(WandbConfig()),
            "profile": asdict(ProfileConfig()),
            # Folder of JAX's persistent compilation cache: a run that is started again compiles nothing.
            "compilation_cache": "",
            "evaluation": {
                # Steps between evaluations on held-out records, logged as eval_*; 0 for none. They are made
                # by the world, or read from a file of the training data's format at `path`.
                "every": 0,
                "records": 256,
                "path": "",
                "scenes": 500,  # the world's held-out scenes; 0 evaluates nothing
                "world": False,  # on the world's scenes, though training reads files: pairs made from it
                "batch_size": 64,
                "max_new_tokens": 40,
                "gallery": 12,  # scenes shown in the report
                "saliency": True,  # the report shows where the loss looks: its gradient by the pixels
            },
        }
    )
    return config.lock()


_SMALL_VISION = ViTConfig(
    image_size=72,
    patch_size=12,
    hidden_size=128,
    intermediate_size=512,
    num_layers=4,
    num_heads=2,
    unroll=True,
)
_SMALL_LANGUAGE = LlamaConfig(
    hidden_size=128,
    intermediate_size=336,
    num_layers=3,
    num_heads=4,
    num_kv_heads=4,
    unroll=True,
)


def check(config: ConfigDict) -> None:
    """Refuses what would be ignored or cannot work, before anything is built.

    Raises:
      ValueError: names the field and what to do.
    """
    recipe = named(config.recipe, config.options.get(config.recipe, ConfigDict()).to_dict())
    for name, options in config.options.items():
        defaults = default_options(name)
        changed = [k for k, v in options.items() if _plain(v) != _plain(defaults[k])]
        if name != config.recipe and changed:
            raise ValueError(
                f"options.{name}.{changed[0]} is set, but the recipe is {config.recipe!r} and would "
                f"ignore it; set options.{config.recipe}.* or recipe={name}"
            )
    for field in (
        "train.steps",
        "train.batch_size",
        "checkpoint.every",
        "checkpoint.keep",
        "data.threads",
        "data.max_images",
    ):
        section, name = field.split(".")
        if config[section][name] < 1:
            raise ValueError(f"{field} is {config[section][name]}; it must be at least 1")
    OptimizerConfig(**config.optimizer.to_dict())
    if config.lora.rank:
        LoraConfig(**config.lora.to_dict())
    compute = Compute(**config.compute.to_dict())
    compute.check_machine()
    if config.reference.mode not in MODES:
        raise ValueError(f"reference.mode is {config.reference.mode!r}; choose one of {', '.join(MODES)}")
    rows, part = config.train.batch_size, config.train.microbatch_size
    if part < 0 or (0 < part < rows and rows % part):
        raise ValueError(
            f"train.microbatch_size is {part}; it must divide train.batch_size ({rows}), or be 0"
        )
    if config.data.limit < 0:
        raise ValueError(f"data.limit is {config.data.limit}; give a number of records, or 0 for all")
    check_choices(config.data.to_dict())
    check_rules(config.sharding.to_dict())
    if config.train.on_nonfinite not in ("stop", "skip"):
        raise ValueError(f"train.on_nonfinite is {config.train.on_nonfinite!r}; choose stop or skip")
    if config.evaluation.every and config.data.source == MIXTURE:
        raise ValueError("evaluation.every is for one source of data; leave it at 0 for data.source=mixture")
    if config.evaluation.every and not config.evaluation.path and config.data.source not in WORLDS:
        raise ValueError(
            "evaluation.every needs held-out records: set evaluation.path to a file of the training data's "
            "format, or evaluation.every=0"
        )
    if not 0 <= config.data.max_bad_fraction <= 1:
        raise ValueError(
            f"data.max_bad_fraction is {config.data.max_bad_fraction}; give a fraction between 0 and 1"
        )
    for field, reason in _idle(config, recipe):
        if _plain(_field(config, field)) != _plain(_field(default_config(), field)):
            raise ValueError(f"{field} is set, but {reason} would ignore it; leave it at its default")
    if config.optimizer.name == "muon" and config.lora.rank:
        raise ValueError(
            "optimizer.name='muon' trains whole matrices; take adamw for an adapter (lora.rank > 0)"
        )
    AlarmConfig(**config.alarms.to_dict())
    judge = JudgeConfig(**config.rewards.judge.to_dict())
    if recipe.rollout is not None and recipe.rollout.judge and not judge.kind:
        raise ValueError(f"recipe {config.recipe!r} has pairs of responses compared; set rewards.judge.kind")
    if config.rewards.model and config.rewards.config:
        raise ValueError("rewards.model and rewards.config both name a reward model; set one of them to ''")
    if recipe.rollout is not None and recipe.rollout.verifier:
        if bool(config.verifier.model) == bool(config.verifier.config):
            raise ValueError(
                f"recipe {config.recipe!r} asks a verifier of words; set one of verifier.model (a CLIP or "
                "SigLIP folder) and verifier.config (like configs/world_clip.py)"
            )
        if re.findall(r"[{}]+", config.verifier.template) != ["{}"]:
            raise ValueError(
                f"verifier.template is {config.verifier.template!r}; it must hold {{}} once, where the word "
                "goes, and no other brace"
            )
        if config.verifier.synonyms not in SYNONYMS:
            raise ValueError(
                f"verifier.synonyms is {config.verifier.synonyms!r}; choose one of {', '.join(SYNONYMS)}"
            )
    if recipe.rollout is not None:
        if rows % recipe.rollout.minibatches:
            parts = recipe.rollout.minibatches
            raise ValueError(f"{parts} minibatches must divide train.batch_size ({rows})")
        if config.evaluation.every:
            raise ValueError(
                f"evaluation.every evaluates the loss on responses of the data, and recipe {config.recipe!r} "
                "makes its own; leave it at 0"
            )
    if config.base.model and config.base.config:
        raise ValueError("base.model and base.config both say where training starts; set one of them to ''")


def asks_reward_model(config: ConfigDict, recipe: Recipe) -> bool:
    """Whether a run needs a reward model: for rewards, or as the judge."""
    rollout = recipe.rollout
    if rollout is None:
        return False
    return rollout.rewards or (rollout.judge and config.rewards.judge.kind == "reward_model")


def _idle(config: ConfigDict, recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Fields or sections that the rest of the configuration leaves unread, with what makes them so."""
    for field in _unread_of_data(config.data.source):
        yield f"data.{field}", f"data.source={config.data.source}"
    if config.data.on_bad_record != "skip":
        yield "data.max_bad_fraction", f"data.on_bad_record={config.data.on_bad_record}"
    if config.lora.rank:
        yield "train.frozen", "training an adapter (lora.rank > 0), which freezes all parameters,"
    else:
        yield "lora.alpha", "lora.rank=0"
        yield "lora.targets", "lora.rank=0"
        yield "lora.dropout", "lora.rank=0"
        yield "lora.modules_to_save", "lora.rank=0"
    if config.optimizer.name != "muon":
        yield "optimizer.matrix_learning_rate", f"optimizer.name={config.optimizer.name}"
    if config.optimizer.name == "adafactor":
        yield "optimizer.beta1", "optimizer.name=adafactor"
        yield "optimizer.beta2", "optimizer.name=adafactor"
    if not config.evaluation.every:
        yield "checkpoint.best_metric", "a run without evaluations (evaluation.every=0)"
        yield "evaluation.path", "a run without evaluations (evaluation.every=0)"
        yield "evaluation.records", "a run without evaluations (evaluation.every=0)"
    elif config.data.source in WORLDS:
        yield "evaluation.path", f"data.source={config.data.source}"
    if config.data.source in WORLDS:
        yield "evaluation.world", f"data.source={config.data.source}"
    if not config.checkpoint.best_metric:
        yield "checkpoint.greater_is_better", "checkpoint.best_metric=''"
    if not config.tracking.project:
        yield "tracking.name", "tracking.project=''"
    if recipe.rollout is None or not recipe.rollout.judge:
        yield "rewards.judge", f"recipe={config.recipe}, which asks no judge,"
    if not asks_reward_model(config, recipe):
        for field in ("model", "config", "inherit"):
            yield f"rewards.{field}", f"recipe={config.recipe}, which asks no reward model,"
    if recipe.rollout is None or not recipe.rollout.verifier:
        yield "verifier", f"recipe={config.recipe}, which asks no verifier,"
    if recipe.rollout is None or not recipe.rollout.similarity:
        yield "rewards.similarity", f"recipe={config.recipe}, which compares no texts,"
    if recipe.rollout is None:
        yield "alarms", f"recipe={config.recipe}, which samples nothing,"
    else:
        yield "reference.mode", f"recipe={config.recipe}, whose responses are not known beforehand,"
    if config.reference.mode != "cached":
        yield "reference.path", f"reference.mode={config.reference.mode}"
    elif not recipe.needs_reference:
        yield "reference.mode", f"recipe={config.recipe}, which has no reference,"
    if config.base.model:
        yield "model", "the shape of base.model"
    elif config.base.config and "model" not in config.base.inherit:
        yield "model", "base.config with a base.inherit without 'model'"


def _unread_of_data(source: str) -> list[str]:
    """Fields of the `data` section that say nothing of a source."""
    if source in WORLDS:
        flips = [] if source == "world_preference" else ["flip_labels"]
        return [
            "path",
            "images",
            "max_images",
            "mixture",
            "filter",
            "limit",
            "box_format",
            "preflight",
            *flips,
        ]
    files = ["path", "images", "filter", "limit"] if source == MIXTURE else ["mixture"]
    boxes = [] if source in (PREFERENCE_FOLDER, MIXTURE) else ["box_format"]
    return ["size", "flip_labels", *files, *boxes]


def _field(config: ConfigDict, path: str) -> Any:
    for name in path.split("."):
        config = config[name]
    return config.to_dict() if isinstance(config, ConfigDict) else config


def plain(config: ConfigDict) -> dict[str, Any]:
    """The configuration as JSON sees it."""
    return json.loads(json.dumps(config.to_dict()))


def fingerprint(config: ConfigDict, default: ConfigDict | None = None) -> str:
    """A short hash of what a configuration changes of the defaults; fields added later do not change it.

    Args:
      config: the configuration.
      default: its defaults; None takes a run's.
    """
    changes = differences(plain(default or default_config()), plain(config))
    return hashlib.sha256(json.dumps(changes).encode()).hexdigest()[:10]


# Fields that say how a run is computed, not what: it may go on with others.
_HOW = (
    "alarms.",
    "mesh.",
    "sharding.",
    "compute.",
    "checkpoint.",
    "tracking.",
    "profile.",
    "compilation_cache",
    # Where a judge is and how it is asked, not who it is and what.
    *(f"rewards.judge.{name}" for name in HOW_ASKED),
    "data.workers",
    "data.threads",
    "train.microbatch_size",
)


def changes_since(recorded: Mapping[str, Any], config: ConfigDict) -> tuple[list[str], list[str]]:
    """Every field in which a configuration differs from one that a run recorded, as `a.b: old -> new`.

    Fields that the run did not know yet had their defaults.

    Returns:
      Changes that make it another run, and changes of how it is computed, with which it may go on.
    """
    changes = differences(_completed(recorded, plain(default_config())), plain(config))
    how = [change for change in changes if change.startswith(_HOW)]
    return [change for change in changes if change not in how], how


def _completed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and the defaults of what they lack."""
    known = dict(values)
    for name, default in defaults.items():
        if name not in known:
            known[name] = default
        elif isinstance(default, Mapping) and isinstance(known[name], Mapping):
            known[name] = _completed(known[name], default)
    return known


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every field in which two plain configurations differ, as `a.b: old -> new`."""
    changes = []
    for name in sorted(old.keys() | new.keys()):
        before, after, path = old.get(name), new.get(name), f"{prefix}{name}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes += differences(before, after, f"{path}.")
        elif before != after:
            changes.append(f"{path}: {before!r} -> {after!r}")
    return changes


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
