"""Every recipe: its formula by hand, its views, its options."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.recipes.random_batches import CONFIG, batch_for, experience, learns_from_rewards, rows_of
from tests.small_models import tiny_model
from vla_jax.models import llava
from vla_jax.recipes import available, default_options, named
from vla_jax.scoring import Scores
from vla_jax.training.step import Method, Trained, make_views, sums_of

BASE = tiny_model().params
views_of = jax.jit(make_views, static_argnums=(0, 2))


def method(name, options=None, *, seed=0):
    return Method(CONFIG, named(name, options), optax.identity(), seed)


def test_the_supervised_loss_is_the_mean_over_all_tokens_of_the_batch():
    chosen = method("sft")
    batch = batch_for(chosen.recipe)
    trained = Trained(None, BASE)
    step = jax.jit(lambda batch: sums_of(chosen, trained, {}, batch).means()["loss"])
    per_row = [step(batch._replace(weights=np.eye(3, dtype=np.float32)[i])) for i in range(3)]
    tokens = batch.scored.sum((1, 2))
    assert len(set(tokens)) > 1
    assert float(step(batch)) == pytest.approx(float(np.dot(per_row, tokens) / tokens.sum()), rel=1e-5)


# --- formulas ----------------------------------------------------------------------------------------

RATIOS = np.random.default_rng(1).normal(0, 10, (6, 8))


def scores_with(ratios):
    """Scores whose log-ratios are `ratios`."""
    policy = jnp.array(ratios, jnp.float32)[..., None]
    there = jnp.ones(policy.shape, bool)
    return Scores(policy, jnp.zeros_like(policy), there, changed=there)


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


def test_ipo_regresses_the_margin_of_means_or_sums_on_a_constant():
    tokens = jnp.array([3, 2])
    mask = jnp.arange(3) < tokens[:, None]
    policy = jnp.array(RATIOS[:, :6].reshape(6, 2, 3), jnp.float32)
    scores = Scores(policy * mask, jnp.zeros_like(policy), jnp.broadcast_to(mask, policy.shape))
    sums = np.sum(RATIOS[:, :6].reshape(6, 2, 3) * np.asarray(mask), axis=-1)
    for normalized, ratios in ((True, sums / np.asarray(tokens)), (False, sums)):
        made = named("ipo", {"beta": 0.2, "length_normalize": normalized}).objective(scores)
        np.testing.assert_allclose(made.losses, (ratios[:, 0] - ratios[:, 1] - 2.5) ** 2, rtol=1e-4)
        np.testing.assert_allclose(made.metrics["rewards/chosen"], 0.2 * sums[:, 0], rtol=1e-5)


def test_slic_is_a_hinge_on_the_margin():
    losses, _, r = losses_of("slic", {"beta": 0.5}, 2)
    np.testing.assert_allclose(losses, np.maximum(0, 1 - (r[:, 0] - r[:, 1])), rtol=1e-5)
    assert (losses == 0).any() and (losses > 0).any()


def test_adavip_weighs_what_it_rejects_by_how_likely_it_still_is():
    losses, metrics, r = losses_of("adavip", {"beta": 0.1}, 3)
    behind = np.exp(r[:, 1:] - r[:, :1])
    np.testing.assert_allclose(losses, np.log1p(behind.sum(1)), rtol=1e-5)
    share = 1 / (1 + np.exp(r[:, 2] - r[:, 1]))
    np.testing.assert_allclose(metrics["weights/rejected"], share, rtol=1e-4)
    np.testing.assert_allclose(metrics["weights/removed"], 1 - share, rtol=1e-3, atol=1e-6)
    text, vision = (minus_log_sigmoid(r[:, 0] - r[:, i]) for i in (1, 2))
    for weighting, expected in (("equal", text + vision), ("text", text), ("vision", vision)):
        losses, _, _ = losses_of("adavip", {"weighting": weighting}, 3)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="choose one of adaptive, equal, text, vision"):
        named("adavip", {"weighting": "half"})


def test_povid_averages_the_pair_of_the_data_and_the_pair_with_the_noised_answer():
    losses, metrics, r = losses_of("povid", {"gamma": 0.3}, 3)
    text, noised = (minus_log_sigmoid(r[:, 0] - r[:, i]) for i in (1, 2))
    np.testing.assert_allclose(losses, 0.3 * text + 0.7 * noised, rtol=1e-5)
    np.testing.assert_allclose(metrics["rewards/noised"], r[:, 2], rtol=1e-5)


@pytest.mark.parametrize("mean", [True, False])
def test_rlhfv_counts_changed_tokens_more(mean):
    policy = RATIOS[:, :6].reshape(6, 2, 3)
    changed = np.array([[True, False, False], [False, True, True]])
    weights = np.where(changed, 5.0, 1.0)
    totals = (policy * weights).sum(-1) / (weights.sum(-1) if mean else 1)
    scores = Scores(
        jnp.array(policy, jnp.float32),
        jnp.zeros(policy.shape),
        jnp.ones(policy.shape, bool),
        changed=jnp.broadcast_to(changed, policy.shape),
    )
    made = named("rlhfv", {"length_normalize": mean}).objective(scores)
    np.testing.assert_allclose(made.losses, minus_log_sigmoid(0.5 * (totals[:, 0] - totals[:, 1])), rtol=1e-4)


def test_a_reward_model_ranks_pairs_by_its_head():
    said = jnp.array([[2.0, -1.0], [0.5, 0.5], [-3.0, 4.0]])
    empty = jnp.zeros((3, 2, 1))
    scores = Scores(empty, None, empty > 0, sequences=said)
    made = named("reward_model", {"center_rewards_coefficient": 0.1}).objective(scores)
    expected = minus_log_sigmoid(said[:, 0] - said[:, 1]) + 0.1 * (said[:, 0] + said[:, 1]) ** 2
    np.testing.assert_allclose(made.losses, expected, rtol=1e-5)
    np.testing.assert_array_equal(made.metrics["rewards/accuracies"], [1, 0, 0])


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


WITH_REFERENCE = [name for name in available() if named(name).needs_reference]
PREFERRING = [name for name in WITH_REFERENCE if not learns_from_rewards(named(name))]


@pytest.mark.parametrize("name", PREFERRING)
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
    read = {view for view, _ in (*recipe.candidates, *recipe.made)}
    assert read == set(range(len(recipe.view_names)))
    responses = batch.response_tokens.shape[1] + len(recipe.made)
    assert {candidate.response for candidate in recipe.candidates} == set(range(responses))


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

    def spied(params, config, pixels, *others):
        seen.append(pixels)
        return original(params, config, pixels, *others)

    monkeypatch.setattr(llava, "image_features", spied)
    chosen = method("mdpo")  # so that both run the vision tower

    @jax.jit
    def pixels_seen(trained, base, batch):
        sums_of(chosen, trained, base, batch)
        return tuple(seen)

    copy = Trained(None, jax.tree.map(jnp.copy, BASE))
    policys, references = pixels_seen(copy, BASE, batch_for(chosen.recipe, rows=2))
    np.testing.assert_array_equal(policys, references)


# --- naming ------------------------------------------------------------------------------------------


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=f"there is no recipe 'grpo'; choose one of {', '.join(available())}"
    ):
        named("grpo")
    for name in (
        "recipe",
        "measures",
        "rollouts",
        "answers",
        "judged_pairs",
    ):  # modules of the package that are no methods
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
    betas = {name: options["beta"] for name in available() if "beta" in (options := default_options(name))}
    others = {"rlhfv": 0.5, "rloo": 0.4, "ppo": 0.05}
    assert {name: betas.pop(name) for name in others} == others and set(betas.values()) == {0.1}
    assert default_options("rloo")["samples"] == 4 and default_options("ppo")["value_weight"] == 0.1
    assert default_options("mixed_dpo")["probability"] == 0.5
    assert default_options("lpoi")["num_views"] == 5 and default_options("lpoi")["visual_prompt"]
    assert default_options("mdpo")["crop_area"] == (0.01, 0.2)


# --- extremes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_losses_and_gradients_are_finite_whatever_the_scores(name, dtype):
    """Log-ratios of ten thousand either way, all equal, and rows of which no token counts."""
    recipe = named(name)
    count = len(recipe.candidates)
    ratios = np.array([[1e4] * count, [-1e4] * count, [0.0] * count, np.linspace(1e4, -1e4, count)])
    policy = jnp.array(np.concatenate([ratios, ratios[:, ::-1]]), dtype)[..., None]

    @jax.jit
    def run(policy, mask):
        def total(policy):
            found = jax.tree.map(jnp.asarray, experience(np.ones(policy.shape), recipe.values))
            scores = Scores(policy, jnp.zeros_like(policy), mask, changed=mask, experience=found)
            made = recipe.objective(scores.replace(values=policy) if recipe.values else scores)
            return made.losses.sum(), made

        return jax.grad(total, has_aux=True)(policy)

    for mask in (jnp.ones(policy.shape, bool), jnp.zeros(policy.shape, bool)):
        slopes, made = run(policy, mask)
        values = [made.losses, slopes, *made.metrics.values()]
        assert all(bool(jnp.isfinite(value).all()) for value in values)
        assert mask.any() or not slopes.any()
