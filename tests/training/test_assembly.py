"""A run is put together from its configuration: models made anew, models imported, models refused."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_models import tiny_model
from vla_jax.interop import Model
from vla_jax.training.assembly import assemble, check_model, fresh_model
from vla_jax.training.beginning import recipe_of
from vla_jax.training.configuration import default_config
from vla_jax.training.tracking import read_metrics

# As large as the world can be drawn.
MODEL = tiny_model(vision={"image_size": 36})


def half(model: Model, dtype: str) -> Model:
    return replace(model, params=jax.tree.map(lambda leaf: leaf.astype(dtype), model.params))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An adapter trained on the model in each dtype."""

    def train(dtype):
        run = assemble(lora_run(), half(MODEL, dtype))
        return run.train(tmp_path_factory.mktemp(dtype) / "run", "train")

    return {dtype: train(dtype) for dtype in ("float32", "bfloat16")}


def lora_run():
    config = default_config()
    config.recipe = "dpo"
    config.data.source = "world_preference"
    config.data.max_completion_length = 24
    config.lora.rank = 2
    config.lora.targets = "."
    config.train.steps = 3
    config.train.batch_size = 4
    config.optimizer.learning_rate = 1e-2
    return config


def test_an_adapter_trains_in_full_precision_beside_a_base_in_half(trained):
    model = trained["bfloat16"]
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(model.adapter)} == {jnp.dtype("float32")}
    for ours, exact in zip(
        jax.tree.leaves(model.adapter), jax.tree.leaves(trained["float32"].adapter), strict=True
    ):
        # Adam's first steps are as large as the rate whatever the gradient: only their signs can differ.
        assert np.mean(np.abs(ours - exact)) < 0.5 * 3e-2
    moved = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(model.adapter))
    assert moved > 1e-3


def test_a_next_stage_begins_from_the_adapter_merged_in_the_bases_dtype(trained):
    model = assemble(lora_run(), trained["bfloat16"]).model
    assert model.adapter is None and model.origin == ""
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("bfloat16")}


def test_training_all_parameters_in_half_precision_is_refused():
    config = lora_run()
    config.lora.rank = 0
    with pytest.raises(
        ValueError, match="they are bfloat16, which rounds most updates away; set lora.rank, or"
    ):
        assemble(config, half(MODEL, "bfloat16"))


def test_a_fresh_model_keeps_every_patch_of_a_tower_without_a_class_token():
    config = default_config()
    config.model.vision.family = "siglip"
    config.model.vision.pixel_mean = (0.5, 0.5, 0.5)
    model = fresh_model(config)
    assert model.config.num_image_tokens == model.config.vision.num_patches == 36
    # Padding is 0 once normalised, as in LLaVA-1.5.
    assert model.processor.pad_to_square == (127, 127, 127)
    assert model.processor.to_dict(model.config.vision.pixel_mean, model.config.vision.pixel_std)


def test_rows_that_are_longer_than_the_model_was_made_for_are_refused_by_field():
    def made_for(tokens):
        config = json.dumps({"text_config": {"max_position_embeddings": tokens}}).encode()
        return replace(MODEL, files={"config.json": config})

    config = lora_run()
    config.data.max_prompt_length = 96
    check_model(config, made_for(120), recipe_of(config))
    with pytest.raises(
        ValueError,
        match=r"data.max_prompt_length \+ data.max_completion_length is 120, and .* 119 tokens; lower them",
    ):
        assemble(config, made_for(119))


def test_a_trained_models_held_out_figures_are_those_of_its_runs_last_evaluation(tmp_path):
    config = lora_run()
    config.recipe = "reward_model"
    config.evaluation.every = 3
    config.evaluation.records = 6
    config.optimizer.learning_rate = 0.1
    run = assemble(config, MODEL)
    began, trained = run.held_out_metrics(), run.train(tmp_path / "run", "train")
    (logged,) = (row for row in read_metrics(tmp_path / "run/metrics.jsonl") if "eval_loss" in row)
    asked = assemble(config, trained).held_out_metrics()
    assert asked == {name: pytest.approx(logged[name], abs=1e-4) for name in asked} and "eval_loss" in asked
    assert abs(began["eval_loss"] - asked["eval_loss"]) > 1e-2


def test_a_run_without_held_out_records_has_no_figures():
    assert assemble(lora_run(), MODEL).held_out_metrics() == {}
