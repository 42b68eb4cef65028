"""Every recipe: its loss at step 0, its formula by hand, its views, and what must not change it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.small_models import tiny_config, tiny_model
from vla_jax.data import Batch
from vla_jax.models import llava, lora
from vla_jax.models.lora import LoraConfig
from vla_jax.recipes import available, default_options, named
from vla_jax.scoring import Scores
from vla_jax.training.step import Method, make_views, sums_of

LN_2 = math.log(2)
# (recipe, options) -> the loss where policy and reference agree.
STEP_0 = {
    "dpo": [({}, LN_2)],
    "mdpo": [({}, 3 * LN_2)],
    "lpoi": [({"num_views": views}, 2 * LN_2 + math.log(math.factorial(views))) for views in (3, 4, 5)],
}
CASES = [
    pytest.param(name, options, loss, full, id=f"{name}-{options}-{'full' if full else 'adapter'}")
    for name, cases in STEP_0.items()
    for i, (options, loss) in enumerate(cases)
    for full in (False, True)[: 2 if i == 0 else 1]
]
CONFIG = tiny_config()
BASE = tiny_model().params
COPY = jax.tree.map(jnp.copy, BASE)
ADAPTER = lora.initialise(llava.table(CONFIG), LoraConfig(rank=2, alpha=2.0), jax.random.key(1))
TRAINED_ADAPTER = jax.tree.map(lambda x: x + 0.05, ADAPTER)


def loss_and_metrics(*arguments):
    """The loss, and all metrics with it."""
    means = sums_of(*arguments).means()
    return means["loss"], means


def method(name, options=None, *, full=False, seed=0):
    return Method(CONFIG, named(name, options), optax.identity(), full, seed)


def batch_for(recipe, rows=3):
    """Random records of different lengths."""
    random, roles = np.random.default_rng(0), len(recipe.responses)
    prefix = random.integers(4, CONFIG.language.vocab_size, (rows, 10))
    prefix[:, 3 : 3 + CONFIG.num_image_tokens] = CONFIG.image_token_id
    prefix_mask = np.arange(10) >= np.arange(rows)[:, None] % 3
    mask = np.arange(5) < random.integers(2, 6, (rows, roles))[..., None]
    return Batch(
        images=random.integers(0, 256, (rows, 24, 24, 3), np.uint8),
        boxes=np.array([[2, 6, 14, 17], [6, 10, 17, 23], [8, 4, 23, 15]] * rows, np.float32)[:rows],
        prefix_tokens=prefix.astype(np.int32),
        prefix_mask=prefix_mask,
        response_tokens=random.integers(4, CONFIG.language.vocab_size, (rows, roles, 5)).astype(np.int32),
        response_mask=mask,
        scored=mask,
        record_ids=np.arange(100, 100 + rows).astype(np.uint32),
        weights=np.ones(rows, np.float32),
    )


def rows_of(batch, rows):
    return Batch(*(column[np.array(rows)] for column in batch))


views_of = jax.jit(make_views, static_argnums=(0, 2))


def evaluated(method, trained, batch):
    return jax.jit(lambda *arguments: loss_and_metrics(method, *arguments))(trained, BASE, batch)


# --- step 0 ------------------------------------------------------------------------------------------


def test_every_preference_recipe_has_its_value_at_step_0_here():
    assert set(STEP_0) == {name for name in available() if named(name).needs_reference}


@pytest.mark.parametrize("name, options, expected, full", CASES)
def test_the_loss_at_step_0_is_the_closed_form_and_margins_are_exactly_0(name, options, expected, full):
    chosen = method(name, options, full=full)
    loss, metrics = evaluated(chosen, COPY if full else ADAPTER, batch_for(chosen.recipe))
    assert float(loss) == pytest.approx(expected, abs=1e-5)
    assert float(metrics["loss"]) == float(loss)
    rewards = {key: float(value) for key, value in metrics.items() if key.startswith("rewards/")}
    assert rewards["rewards/margins"] == 0
    assert not any(rewards.values()), rewards


def test_the_supervised_loss_is_the_mean_over_all_tokens_of_the_batch():
    chosen = method("sft", full=True)
    batch = batch_for(chosen.recipe)
    step = jax.jit(lambda trained, batch: loss_and_metrics(chosen, trained, BASE, batch)[0])
    per_row = [step(BASE, batch._replace(weights=np.eye(3, dtype=np.float32)[i])) for i in range(3)]
    tokens = batch.scored.sum((1, 2))
    assert len(set(tokens)) > 1
    assert float(step(BASE, batch)) == pytest.approx(float(np.dot(per_row, tokens) / tokens.sum()), rel=1e-5)


# --- rows that do not count --------------------------------------------------------------------------


def blank(batch, rows):
    """The batch with some records replaced by what stands in for a bad one."""
    emptied = Batch(*(column.copy() for column in batch))
    for column in emptied:
        column[rows] = 0
    emptied.prefix_mask[rows, -1] = True
    return emptied


@pytest.mark.parametrize("name", available())
def test_a_row_of_weight_0_changes_neither_loss_nor_gradient(name):
    full = not named(name).needs_reference
    chosen, trained = method(name, full=full), BASE if full else TRAINED_ADAPTER
    batch = batch_for(chosen.recipe)

    def step(batch):
        return compiled(trained, BASE, batch)

    # Parameters are arguments: closed over, they would be constants, which XLA folds for seconds.
    compiled = jax.jit(jax.value_and_grad(lambda *a: loss_and_metrics(chosen, *a), has_aux=True))
    # Records 0 and 2 alone, each twice: their mean, in the shape of four rows.
    (without, without_metrics), without_slopes = step(rows_of(batch, [0, 2, 0, 2]))
    assert any(leaf.any() for leaf in jax.tree.leaves(without_slopes))
    four = rows_of(batch, [0, 1, 2, 1])
    unweighted = four._replace(weights=np.array([1, 0, 1, 0], np.float32))
    for candidate in (blank(four, [1, 3]), unweighted):
        (loss, metrics), slopes = step(candidate)
        assert float(loss) == pytest.approx(float(without), rel=1e-5)
        assert metrics.keys() == without_metrics.keys()
        for key, value in metrics.items():
            assert float(value) == pytest.approx(float(without_metrics[key]), rel=1e-4, abs=1e-5), key
        for ours, theirs in zip(jax.tree.leaves(slopes), jax.tree.leaves(without_slopes), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)
    # Without a usable row there is nothing to pay and nothing to learn.
    (loss, _), slopes = step(blank(four, [0, 1, 2, 3]))
    assert float(loss) == 0 and not any(leaf.any() for leaf in jax.tree.leaves(slopes))


# --- formulas ----------------------------------------------------------------------------------------

RATIOS = np.random.default_rng(1).normal(0, 10, (6, 8))


def scores_with(ratios):
    """Scores whose log-ratios are `ratios`."""
    policy = jnp.array(ratios, jnp.float32)[..., None]
    return Scores(policy, jnp.zeros_like(policy), jnp.ones(policy.shape, bool))


def minus_log_sigmoid(x):
    return np.log1p(np.exp(-x))


def losses_of(name, options, candidates):
    """(losses, metrics, rewards in float64) of the recipe's objective on `RATIOS`."""
    ratios = RATIOS[:, :candidates]
    recipe = named(name, options)
    assert len(recipe.candidates) == candidates
    made = recipe.objective(scores_with(ratios))
    assert (made.denominators == 1).all()
    return np.array(made.losses), made.metrics, (options.get("beta", 0.1)) * ratios


@pytest.mark.smoke
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo_compares_the_two_answers(beta):
    losses, metrics, r = losses_of("dpo", {"beta": beta}, 2)
    np.testing.assert_allclose(losses, minus_log_sigmoid(r[:, 0] - r[:, 1]), rtol=1e-5)
    np.testing.assert_allclose(metrics["rewards/margins"], r[:, 0] - r[:, 1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(metrics["rewards/accuracies"], RATIOS[:, 0] > RATIOS[:, 1])


def test_mdpo_adds_a_comparison_of_images_and_an_anchor():
    options = {"conditional_weight": 0.5, "anchor_weight": 2.0, "anchor_delta": 0.3}
    losses, metrics, r = losses_of("mdpo", options, 3)
    terms = {
        "loss/text": minus_log_sigmoid(r[:, 0] - r[:, 1]),
        "loss/conditional": minus_log_sigmoid(r[:, 0] - r[:, 2]),
        "loss/anchor": minus_log_sigmoid(r[:, 0] - 0.3),
    }
    for name, term in terms.items():
        np.testing.assert_allclose(metrics[name], term, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(losses, np.dot([1, 0.5, 2], list(terms.values())), rtol=1e-5)
    np.testing.assert_allclose(metrics["rewards/cropped"], r[:, 2], rtol=1e-5)


@pytest.mark.parametrize("views", [2, 3, 4, 5])
def test_lpoi_adds_a_ranking_of_the_views_and_an_anchor(views):
    options = {"num_views": views, "text_weight": 0.5, "anchor_weight": 2.0, "list_weight": 3.0, "beta": 0.2}
    losses, metrics, r = losses_of("lpoi", options, views + 1)
    places = [np.exp(r[:, k]) / np.exp(r[:, k:views]).sum(1) for k in range(views)]
    terms = {
        "loss/text": minus_log_sigmoid(r[:, 0] - r[:, views]),
        "loss/anchor": minus_log_sigmoid(r[:, 0]),
        "loss/list": -np.log(np.prod(places, axis=0)),
    }
    for name, term in terms.items():
        np.testing.assert_allclose(metrics[name], term, rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(losses, np.dot([0.5, 2, 3], list(terms.values())), rtol=1e-5)
    in_order = (np.diff(RATIOS[:, :views]) < 0).all(1)
    np.testing.assert_array_equal(metrics["rewards/list_accuracies"], in_order)


@pytest.mark.parametrize(
    "name, candidates, weight, term",
    [
        ("mdpo", 3, "conditional_weight", "loss/conditional"),
        ("mdpo", 3, "anchor_weight", "loss/anchor"),
        ("lpoi", 6, "text_weight", "loss/text"),
        ("lpoi", 6, "anchor_weight", "loss/anchor"),
        ("lpoi", 6, "list_weight", "loss/list"),
    ],
)
def test_a_terms_weight_takes_it_out_alone(name, candidates, weight, term):
    whole, metrics, _ = losses_of(name, {}, candidates)
    without, _, _ = losses_of(name, {weight: 0.0}, candidates)
    np.testing.assert_allclose(whole - without, metrics[term], rtol=1e-4, atol=1e-5)
    assert (np.abs(whole - without) > 1e-3).any()


def test_supervised_recipes_sum_the_tokens_of_the_answer_or_the_words_of_the_image():
    tokens, mask = jnp.array([[[-1.0, -2.0, -4.0]]]), jnp.array([[[True, True, False]]])
    scores = Scores(tokens, None, mask, image_words=jnp.array([[-9.0]]))
    made = named("sft").objective(scores)
    assert (float(made.losses[0]), float(made.denominators[0])) == (3, 2)
    made = named("image_words").objective(scores)
    assert (float(made.losses[0]), float(made.denominators[0])) == (9, 1)


# --- metrics -----------------------------------------------------------------------------------------

PREFERENCE_METRICS = {
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
}


@pytest.mark.parametrize("views", [3, 5])
def test_lpois_metrics(views):
    _, metrics, r = losses_of("lpoi", {"num_views": views}, views + 1)
    places = {f"rewards/view_{i + 1}" for i in range(views)}
    terms = {"loss/text", "loss/anchor", "loss/list"}
    assert metrics.keys() == PREFERENCE_METRICS | places | terms | {"rewards/list_accuracies"}
    for i in range(views):
        np.testing.assert_allclose(metrics[f"rewards/view_{i + 1}"], r[:, i], rtol=1e-5)
    np.testing.assert_allclose(metrics["rewards/rejected"], r[:, views], rtol=1e-5)


def test_a_list_in_order_is_counted_as_right_and_one_with_a_tie_is_not():
    ratios = [[5, 4, 3, 0], [5, 3, 4, 0], [5, 5, 4, 0]]
    metrics = named("lpoi", {"num_views": 3}).objective(scores_with(ratios)).metrics
    np.testing.assert_array_equal(metrics["rewards/list_accuracies"], [1, 0, 0])


@pytest.mark.parametrize("name", sorted(STEP_0))
def test_every_preference_recipe_logs_what_trl_logs(name):
    recipe = named(name)
    made = recipe.objective(scores_with(RATIOS[:, : len(recipe.candidates)]))
    assert made.metrics.keys() >= PREFERENCE_METRICS


# --- views -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", available())
def test_a_recipe_makes_as_many_views_as_it_names_and_reads_them_all(name):
    recipe = named(name)
    batch = batch_for(recipe)
    views = views_of(recipe, batch, 0)
    assert views.shape == (3, len(recipe.view_names), 24, 24, 3) and views.dtype == jnp.uint8
    np.testing.assert_array_equal(views[:, 0], batch.images)
    assert {candidate.view for candidate in recipe.candidates} == set(range(len(recipe.view_names)))
    assert {candidate.response for candidate in recipe.candidates} == set(range(len(recipe.responses)))


def test_lpoi_masks_the_box_more_and_more_and_outlines_it_unless_switched_off():
    options = {"num_views": 3, "visual_prompt": False}
    batch = batch_for(named("lpoi"))
    plain, outlined = (
        views_of(named("lpoi", chosen), batch, 0) for chosen in (options, options | {"visual_prompt": True})
    )
    black = (plain == 0).all(-1).sum((2, 3))
    widths, heights = (batch.boxes[:, 2] - batch.boxes[:, 0]), (batch.boxes[:, 3] - batch.boxes[:, 1])
    np.testing.assert_array_equal(black[:, 2], widths * heights)
    assert (black[:, 0] == 0).all() and (black[:, 1] > 0).all() and (black[:, 1] < black[:, 2]).all()
    changed = (plain != outlined).any(-1)
    assert (outlined[changed] == jnp.array([255, 0, 0])).all()
    assert changed[:, 1:].any((2, 3)).all() and not changed[:, 0].any()


def test_random_views_depend_on_seed_and_record_and_not_on_the_place_in_the_batch():
    recipe = named("mdpo")
    batch = batch_for(recipe)
    views = views_of(recipe, batch, 0)
    np.testing.assert_array_equal(views_of(recipe, rows_of(batch, [2, 0, 1]), 0), views[jnp.array([2, 0, 1])])
    np.testing.assert_array_equal(views_of(recipe, rows_of(batch, [1]), 0)[0], views[1])
    other_seed = views_of(recipe, batch, 1)
    other_record = views_of(recipe, batch._replace(record_ids=batch.record_ids + 7), 0)
    for other in (other_seed, other_record):
        np.testing.assert_array_equal(other[:, 0], views[:, 0])
        assert (other[:, 1] != views[:, 1]).any((1, 2, 3)).all()


def test_policy_and_reference_see_the_same_random_crop(monkeypatch):
    seen, original = [], llava.image_features

    def spied(params, config, pixels, adapter=None):
        seen.append(pixels)
        return original(params, config, pixels, adapter)

    monkeypatch.setattr(llava, "image_features", spied)
    chosen = method("mdpo", full=True)  # so that both run the vision tower

    @jax.jit
    def pixels_seen(trained, base, batch):
        loss_and_metrics(chosen, trained, base, batch)
        return tuple(seen)

    policys, references = pixels_seen(COPY, BASE, batch_for(chosen.recipe, rows=2))
    np.testing.assert_array_equal(policys, references)


# --- naming ------------------------------------------------------------------------------------------


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=f"there is no recipe 'ppo'; choose one of {', '.join(available())}"):
        named("ppo")
    for name in ("recipe", "measures"):  # modules of the package that are no methods
        with pytest.raises(ValueError, match="there is no recipe"):
            default_options(name)


@pytest.mark.parametrize("name", available())
def test_an_unknown_option_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=f"recipe '{name}' has no option colour") as caught:
        named(name, {"colour": 1})
    assert all(option in str(caught.value) for option in default_options(name))


@pytest.mark.parametrize("name", available())
def test_default_options_are_a_recipes_own(name):
    assert named(name, default_options(name)).candidates == named(name).candidates


def test_the_papers_defaults():
    assert [default_options(name)["beta"] for name in STEP_0] == [0.1] * 3
    assert default_options("lpoi")["num_views"] == 5 and default_options("lpoi")["visual_prompt"]
    assert default_options("mdpo")["crop_area"] == (0.01, 0.2)
