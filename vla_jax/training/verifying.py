"""The verifier of a run: towers from a folder, or a text half made once for the run's own vision tower."""

import sys
from pathlib import Path

from ml_collections import ConfigDict
from tqdm import tqdm

from vla_jax.data.sources import WORLDS
from vla_jax.data.world import CATEGORIES
from vla_jax.interop import Model
from vla_jax.interop.clip_folder import Clip, load_clip, save_clip
from vla_jax.parallel import is_first, wait_for_all
from vla_jax.rewards.entities import Entities
from vla_jax.rewards.verifier import Verifier
from vla_jax.training.base_identity import fingerprint as identity
from vla_jax.training.configuration import fingerprint
from vla_jax.training.contrastive import default_contrastive_config, pretrain

WORLD_NAMES = "world"


def make_verifier(config: ConfigDict, model: Model, pretraining: ConfigDict | None) -> Verifier | None:
    """What a configuration's `verifier` section says; None where it names no towers.

    Args:
      config: the run's.
      model: whose tower gets a text half.
      pretraining: what `verifier.config` holds; None where it names no file.

    Raises:
      CheckpointError, ValueError: where the towers cannot be read, or there is no such list of names.
    """
    section = config.verifier
    if pretraining is not None:
        for field in section.inherit:
            pretraining[field] = config[field]
        towers = own_towers(pretraining, model, Path(config.base.cache), Path(section.config).stem)
    elif section.model:
        towers = load_clip(Path(section.model))
    else:
        return None
    return verifier_of(towers, config)


def verifier_of(towers: Clip, config: ConfigDict) -> Verifier:
    """These towers as a run's `verifier` section uses them.

    Raises:
      OSError, ValueError: where there is no such list of names.
    """
    section = config.verifier
    entities = entities_of(section.entities, section.synonyms, config.data.source)
    return Verifier(
        towers.config,
        towers.params,
        towers.tokenizer,
        entities,
        section.normalize,
        section.scale,
        section.template,
    )


def own_towers(pretraining: ConfigDict, model: Model, cache: Path, name: str) -> Clip:
    """A model's vision tower with a text half, made once and kept in `cache`."""
    tower = identity(model.params["vision"], {"image_size": model.config.vision.image_size})[:10]
    changes = fingerprint(pretraining, default_contrastive_config())
    folder = cache / f"{name}-seed{pretraining.seed}-{changes}-{tower}"
    if not folder.is_dir() and is_first():
        print(f"verifier: {name} into {folder}, once")
        every = 0.1 if sys.stderr.isatty() else 10
        with tqdm(total=pretraining.steps, desc=name, unit="step", mininterval=every) as bar:

            def progress(loss: float) -> None:
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update()

            save_clip(folder, pretrain(pretraining, model, progress))
    wait_for_all("verifier made")
    return load_clip(folder)


def entities_of(names: str, synonyms: str, source: str) -> Entities:
    """The words that are verified.

    Args:
      names: "" takes those that suit the data, "world" the built-in world's, "shipped" COCO's and LVIS's;
        else a file of lines `name, synonym, synonym`.
      synonyms: which synonyms of the shipped names belong to them, see `Entities.shipped`.
      source: where the data comes from.

    Raises:
      OSError, ValueError: where there is no such list.
    """
    if names == WORLD_NAMES or (not names and source in WORLDS):
        return Entities.from_names(category.name for category in CATEGORIES)
    return Entities.shipped(synonyms) if names in ("", "shipped") else Entities.read(Path(names))
