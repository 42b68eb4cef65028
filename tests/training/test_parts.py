"""What is trained beside an adapter, at which rate, with what dropped, and in how many compiled shapes."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.recipes.random_batches import CONFIG, batch_for
from tests.small_models import draw, tiny_config, tiny_model
from vla_jax.data import BatchPlan, Encoder, batches
from vla_jax.data.batches import Kept
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.images import Pixels
from vla_jax.data.world import PreferenceWorld, WorldConfig
from vla_jax.models import LoraConfig, llava, lora
from vla_jax.recipes import named
from vla_jax.training.assembly import assemble
from vla_jax.training.configuration import check, default_config
from vla_jax.training.optimizer import OptimizerConfig, make_optimizer
from vla_jax.training.run import Run
from vla_jax.training.saliency import saliency
from vla_jax.training.step import (
    Method,
    Trained,
    gradients_and_metrics,
    make_views,
    sums_of,
)
from vla_jax.training.tracking import read_metrics

MODEL = tiny_model(vision={"image_size": 36})
TABLE = llava.table(MODEL.config)


def configured(recipe="dpo", **changes):
    config = default_config()
    config.recipe = recipe
    config.data.source = "world_preference"
    config.data.max_completion_length = 24
    config.lora.rank = 2
    config.train.steps = 2
    config.train.batch_size = 4
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup_ratio = 0.0
    config.update_from_flattened_dict(changes)
    check(config)
    return config


def largest_change(before, after):
    return max(
        float(jnp.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )


def test_parts_named_in_modules_to_save_are_trained_whole_at_their_own_rate(tmp_path):
    config = configured(**{"lora.modules_to_save": "^projector/", "optimizer.projector_learning_rate": 1e-4})
    model = assemble(config, MODEL).train(tmp_path / "run", "train")
    # Adam's first two steps are at most its rate each.
    assert 0.5e-4 < largest_change(MODEL.params["projector"], model.params["projector"]) <= 2e-4
    assert largest_change(MODEL.params["vision"], model.params["vision"]) == 0
    assert largest_change(MODEL.params["language"], model.params["language"]) == 0
    assert model.adapter is not None and model.origin == ""


def test_parts_beside_an_adapter_are_trained_in_float32_and_kept_as_the_base_is(tmp_path):
    half = replace(MODEL, params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), MODEL.params))
    config = configured(**{"lora.modules_to_save": "^projector/", "optimizer.projector_learning_rate": 1e-5})
    run = assemble(config, half)
    begun = run._initial(half.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(begun)} == {jnp.dtype("float32")}
    model = run.train(tmp_path / "run", "train")
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer.projector_learning_rate": 1e-4},
        {"optimizer.vision_learning_rate": 1e-4},
        {"optimizer.head_learning_rate": 1e-4},
        {"optimizer.vision_learning_rate": 1e-4, "lora.modules_to_save": "^projector/"},
        {"optimizer.vision_learning_rate": 1e-4, "lora.rank": 0, "train.frozen": "^vision/"},
        {"optimizer.projector_learning_rate": 1e-4, "lora.rank": 0, "train.frozen": "^(vision|projector)/"},
    ],
)
def test_a_rate_of_a_part_that_is_not_trained_is_refused(settings):
    field = next(iter(settings))
    with pytest.raises(ValueError, match=f"{field} is set, and nothing of that part is trained whole"):
        assemble(configured(**settings), MODEL)


def test_a_new_reward_head_may_have_a_rate_of_its_own():
    assemble(configured("reward_model", **{"optimizer.head_learning_rate": 1e-4}), MODEL)


def test_a_pattern_that_matches_nothing_or_everything_is_refused():
    for pattern, word in (("^projektor/", "no"), (".", "every")):
        with pytest.raises(ValueError, match=f"modules_to_save.* matches {word} parameter"):
            assemble(configured(**{"lora.modules_to_save": pattern}), MODEL)


@pytest.mark.parametrize(
    "field, part",
    [
        ("projector_learning_rate", "projector"),
        ("vision_learning_rate", "vision"),
        ("head_learning_rate", "head"),
    ],
)
def test_each_part_has_its_own_rate(field, part):
    config = OptimizerConfig(learning_rate=1e-3, warmup_ratio=0.0, **{field: 1e-5})
    optimizer = make_optimizer(config, 10, TABLE)
    trained = Trained(None, MODEL.params)
    gradients = jax.tree.map(lambda leaf: jnp.ones_like(leaf) * 1e-3, trained)
    updates = optimizer.update(gradients, optimizer.init(trained), trained)[0].params
    parts = {**updates, "head": updates["language"].pop("head")}
    for name, tree in parts.items():
        expected = 1e-5 if name == part else 1e-3
        for leaf in jax.tree.leaves(tree):
            np.testing.assert_allclose(leaf, -expected, rtol=1e-3, err_msg=name)


def test_dropout_is_drawn_anew_each_step_and_leaves_the_expectation():
    adapter = jax.tree.map(
        lambda x: x + 0.1, lora.initialise(TABLE, LoraConfig(rank=2, alpha=2.0), jax.random.key(0))
    )
    layer = jax.tree.map(lambda x: x[0], adapter["language"]["layers"]["q_proj"])
    x, weight = jnp.ones((3, layer.a.shape[0])), jnp.zeros((layer.a.shape[0], layer.b.shape[1]))

    @jax.jit
    def dropped(key):
        thinned = lora.with_dropout({"q": layer}, 0.25, key)
        return lora.apply(x, weight, thinned["q"])

    exact = lora.apply(x, weight, layer)
    draws = jnp.stack([dropped(jax.random.key(i)) for i in range(400)])
    assert float(jnp.abs(draws[0] - draws[1]).max()) > 0
    deviation = draws.std(axis=0) / 20
    assert bool((jnp.abs(draws.mean(axis=0) - exact) < 5 * deviation + 1e-6).all())
    with pytest.raises(ValueError, match="lora.dropout is 1.0"):
        LoraConfig(dropout=1.0)


def test_training_with_dropout_differs_and_is_repeatable(tmp_path):
    def losses(name, dropout):
        config = configured(**{"lora.dropout": dropout, "train.steps": 3})
        assemble(config, MODEL).train(tmp_path / name, "train")
        return [row["loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl")]

    plain, first, second = losses("plain", 0.0), losses("first", 0.5), losses("second", 0.5)
    assert first == second and first[1:] != plain[1:]


def test_every_part_of_a_batch_draws_its_own_dropout():
    recipe = named("dpo")
    row = jax.tree.map(lambda column: column[:1], batch_for(recipe))
    twice = jax.tree.map(lambda column: np.concatenate([column, column]), row)
    method = Method(CONFIG, recipe, optax.identity(), seed=0, dropout=0.5)
    adapter = lora.initialise(llava.table(CONFIG), LoraConfig(rank=2), jax.random.key(1))
    trained, params = Trained(jax.tree.map(lambda x: x + 0.1, adapter), {}), tiny_model().params
    draws = [float(sums_of(method, trained, params, row, draw).metrics["logps/chosen"]) for draw in (6, 7)]
    whole = gradients_and_metrics(method, trained, params, twice, microbatches=2, step=3)[1]
    assert abs(draws[0] - draws[1]) > 1e-3
    np.testing.assert_allclose(whole["logps/chosen"], np.mean(draws), rtol=1e-5)


def test_a_reward_model_learns_a_new_head(tmp_path):
    run = assemble(configured("reward_model", **{"train.steps": 3}), MODEL)
    start = run.model.params["reward"]["score"]
    model = run.train(tmp_path / "run", "train")
    assert model.config.reward_head
    assert largest_change(start, model.params["reward"]["score"]) > 1e-3
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert {"rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected"} <= rows[0].keys()
    assert {"loss", "grad_norm", "learning_rate", "epoch", "num_tokens"} <= rows[0].keys()


def test_a_reward_is_read_at_the_last_token_of_the_answer():
    config = tiny_config(reward_head=True)
    params = draw(llava.table(config))
    recipe = named("reward_model")
    batch = batch_for(recipe)
    method = Method(config, recipe, optax.identity(), seed=0)
    scores = jax.jit(method.scores)(Trained(None, params), {}, batch)
    features = llava.image_features(
        params, config, (batch.images / 255 - np.array(config.vision.pixel_mean)) / config.vision.pixel_std
    )
    for response in range(2):
        tokens = np.concatenate([batch.prefix_tokens, batch.response_tokens[:, response]], axis=1)
        valid = np.concatenate([batch.prefix_mask, batch.response_mask[:, response]], axis=1)
        states = llava.hidden_states(params, config, tokens, valid, features)
        last = valid.shape[1] - 1 - np.argmax(valid[:, ::-1], axis=1)
        expected = np.asarray(states)[np.arange(3), last] @ np.asarray(params["reward"]["score"])
        np.testing.assert_allclose(scores.sequences[:, response], expected, atol=1e-4)


def test_each_bucket_is_compiled_once_and_nothing_in_a_second_pass(tmp_path, monkeypatch, compilations):
    """Batches of every length that the world has, padded to multiples, short and long ones in turns."""
    config = configured(
        **{
            "data.length_multiple": 8,
            "data.max_completion_length": 48,
            "train.steps": 24,
            "train.batch_size": 2,
        }
    )
    run = assemble(config, MODEL)
    batches = list(itertools.islice(run.open_batches(0), 12))
    shapes = [(batch.prefix_tokens.shape, batch.response_tokens.shape) for batch in batches]
    assert 1 < len(set(shapes)) < 12 and shapes != sorted(shapes)
    compiled = []

    def twice(self, start, stop, *_):
        for batch in [*batches, *batches][start:stop]:
            compiled.append(len(compilations))
            yield batch

    monkeypatch.setattr(Run, "open_batches", twice)
    run.train(tmp_path / "run", "train")
    assert compilations.count("jit(step)") == len(set(shapes))
    assert compiled[-1] == compiled[-12], compilations[compiled[-12] :]


def test_held_out_records_are_measured_while_training_and_the_best_state_is_kept(tmp_path):
    config = configured(
        **{
            "train.steps": 6,
            "evaluation.every": 2,
            "evaluation.records": 6,  # a batch and a half
            "checkpoint.keep": 1,
            "checkpoint.best_metric": "eval_rewards/margins",
            "checkpoint.greater_is_better": True,
            "optimizer.learning_rate": 0.3,
        }
    )
    run = assemble(config, MODEL)
    run.train(tmp_path / "run", "train")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    measured = {row["step"]: row["eval_rewards/margins"] for row in rows if "eval_loss" in row}
    assert measured.keys() == {2, 4, 6} and len(set(measured.values())) == 3
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    kept = {int(file.name) for file in (tmp_path / "run" / "checkpoints").iterdir() if file.name.isdigit()}
    assert kept == {6, max(measured, key=measured.get)}


def test_an_image_in_tiles_is_trained_on_tile_by_tile():
    config = tiny_config(anyres=True)
    params = draw(llava.table(config))
    processor = ImageProcessor((24, 24), (24, 24), pinpoints=((24, 48), (48, 24), (48, 48)))
    adapter = lora.initialise(llava.table(config), LoraConfig(rank=2), jax.random.key(0))
    for name in ("dpo", "povid"):
        recipe = named(name)
        encoder = Encoder(
            MODEL.tokenizer, processor, config.num_image_tokens, recipe.responses, max_prompt_length=64
        )
        world = PreferenceWorld(WorldConfig(image_size=36), 4)
        wide = [replace(world[i], images=(Pixels(world[i].image[:: 1 + i % 2]),)) for i in range(4)]
        batch = next(batches(wide, encoder, BatchPlan(4, 4, 0), stop=1))
        assert batch.images.shape[:2] == (4, 5) and batch.layout is not None
        method = Method(config, recipe, optax.identity(), seed=0)
        trained = Trained(jax.tree.map(lambda x: x + 0.05, adapter), {})
        slopes, metrics = jax.jit(gradients_and_metrics, static_argnums=0)(method, trained, params, batch)
        assert np.isfinite(float(metrics["loss"]))
        assert any(bool((leaf != 0).any()) for leaf in jax.tree.leaves(slopes))


def test_recipes_that_need_the_whole_image_refuse_tiles():
    tiled = replace(MODEL, config=replace(tiny_config(anyres=True), vision=MODEL.config.vision))
    with pytest.raises(ValueError, match="makes views of whole images.* take one of .*dpo, "):
        assemble(configured("lpoi"), tiled)


def test_saliency_is_the_gradient_by_the_pixels():
    """Against a finite difference of one pixel of one view, the reference held."""
    params = tiny_model().params
    recipe = named("lpoi", {"num_views": 3})
    batch = batch_for(recipe)
    method = Method(CONFIG, recipe, optax.identity(), seed=0)
    adapter = lora.initialise(llava.table(CONFIG), LoraConfig(rank=2), jax.random.key(1))
    trained = Trained(jax.tree.map(lambda x: x + 0.05, adapter), {})
    batch = batch._replace(reference=Kept(*jax.jit(method.reference_scores)(params, batch)))
    maps = saliency(method, trained, params, batch)
    assert maps.shape == (3, 3, 24, 24) and bool((maps >= 0).all()) and bool((maps > 0).any())

    @jax.jit
    def loss(views):
        scores = method.scores_of_views(trained, params, batch, views)
        return recipe.objective(scores).losses.sum()

    views = make_views(recipe, batch, 0).astype(jnp.float32)
    row, view, y, x = np.unravel_index(int(jnp.argmax(maps)), maps.shape)
    total = 0.0
    for channel in range(3):
        nudge = jnp.zeros_like(views).at[row, view, y, x, channel].set(8.0)
        total += abs(float(loss(views + nudge) - loss(views - nudge)) / 16)
    assert total == pytest.approx(float(maps[row, view, y, x]), rel=0.05)
