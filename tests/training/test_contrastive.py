"""Contrastive pretraining: the model's tower stays, pairs are learnt, what it makes is found again."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from tests.small_models import tiny_model
from vla_jax.data.world import CATEGORIES
from vla_jax.training.configuration import default_config
from vla_jax.training.contrastive import default_contrastive_config, names_of, open_tagged, pretrain
from vla_jax.training.verifying import entities_of, make_verifier

MODEL = tiny_model(vision={"image_size": 36})


def brief(**changes):
    config = default_contrastive_config()
    config.update({"steps": 12, "batch_size": 16, "max_vocab_size": 300})
    config.text.update({"hidden_size": 16, "intermediate_size": 32, "num_layers": 1})
    config.data.size, config.held_out = 32, 8
    config.optimizer.learning_rate = 1e-2
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def made():
    losses = []
    return pretrain(brief(), MODEL, losses.append), losses


def test_the_models_own_tower_stays_to_the_bit_under_what_is_trained(made):
    towers, losses = made
    own, depth = MODEL.params["vision"], MODEL.config.vision.num_layers
    assert towers.config.vision == replace(MODEL.config.vision, num_layers=depth + 1)
    below = jax.tree.map(lambda layers: layers[:depth], towers.params["vision"]["layers"])
    jax.tree.map(np.testing.assert_array_equal, below, own["layers"])
    for name in ("patch", "position", "class", "pre_norm"):
        jax.tree.map(np.testing.assert_array_equal, towers.params["vision"][name], own[name])
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.05


def test_it_is_measured_on_other_scenes_than_it_reads():
    config = brief()
    read = {record.key for record in map(open_tagged(config, MODEL).__getitem__, range(32))}
    held_out = open_tagged(config, MODEL, held_out=True)
    assert len(held_out) == 8 and not read & {held_out[i].key for i in range(8)}


def test_names_tell_several_from_one():
    record = open_tagged(brief(), MODEL)[0]
    doubled = replace(record, objects=(record.objects[0], *record.objects))
    name = record.objects[0].name
    plural = next(category.plural for category in CATEGORIES if category.name == name)
    assert names_of(doubled)[0] == plural
    with pytest.raises(ValueError, match="names no object"):
        names_of(replace(record, objects=()))


def test_a_runs_verifier_is_made_once_of_its_own_tower(tmp_path):
    config = default_config()
    config.seed, config.base.cache, config.verifier.config = 3, str(tmp_path), "configs/some_clip.py"
    first = make_verifier(config, MODEL, brief(steps=1))
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("some_clip-seed3-")
    kept = folder.stat().st_mtime_ns
    again = make_verifier(config, MODEL, brief(steps=1))
    assert folder.stat().st_mtime_ns == kept and len(list(tmp_path.iterdir())) == 1
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    config.verifier.config, config.verifier.model = "", str(folder)
    jax.tree.map(np.testing.assert_array_equal, first.params, make_verifier(config, MODEL, None).params)
    config.verifier.model = ""
    assert make_verifier(config, MODEL, None) is None


def test_words_suit_the_data(tmp_path):
    assert entities_of("", "nouns", "world_preference").names == tuple(c.name for c in CATEGORIES)
    assert "aerosol can" in entities_of("", "none", "trl").names
    (tmp_path / "mine.txt").write_text("cup\n")
    assert entities_of(str(tmp_path / "mine.txt"), "none", "trl").names == ("cup",)
