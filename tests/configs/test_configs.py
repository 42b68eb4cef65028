"""Every config that ships is one the trainer accepts, and says what it is."""

import ast
from pathlib import Path

import pytest

from vla_jax.recipes import available
from vla_jax.train import load_config
from vla_jax.training.configuration import check
from vla_jax.training.contrastive import default_contrastive_config

EVERY = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.py"))
# What makes a verifier's towers is no run of a recipe.
PRETRAINING = [path for path in EVERY if path.stem.endswith("_clip")]
CONFIGS = [path for path in EVERY if path not in PRETRAINING]


STUDY_ONLINE = {"rloo", "ppo", "online_dpo", "mixed_dpo"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_accepted_and_has_a_docstring(path):
    check(load_config(path))
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_every_recipe_has_a_config_for_the_world():
    named = {load_config(path).recipe for path in CONFIGS if path.stem.startswith("world_")}
    assert named == set(available())


@pytest.mark.parametrize(
    "model, recipes",
    [
        ("llava15_7b", {"dpo", "mdpo", "lpoi", "adavip", "rlhfv", "fisao"}),
        ("llava15_13b", {"dpo", "mdpo", "lpoi", "adavip"}),
        ("llava16_7b", {"dpo", "ipo", "slic", "povid", "bdhs", "reward_model"} | STUDY_ONLINE),
    ],
)
def test_the_papers_models_have_theirs(model, recipes):
    assert {load_config(path).recipe for path in CONFIGS if path.stem.startswith(model)} == recipes


@pytest.mark.parametrize("path", PRETRAINING, ids=lambda path: path.stem)
def test_a_pretraining_of_towers_sets_fields_that_there_are(path):
    config = load_config(path)
    assert config.to_dict().keys() == default_contrastive_config().to_dict().keys()
    assert ast.get_docstring(ast.parse(path.read_text()))
