"""Scores of candidates: sums over counted tokens, an untrained reference, vision run once a view."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.small_models import tiny_config, tiny_model
from vla_jax.data import Batch
from vla_jax.models import llava, lora
from vla_jax.models.lora import LoraConfig
from vla_jax.recipes import named
from vla_jax.scoring import (
    Candidate,
    Prompted,
    Scores,
    TeacherForced,
    encode_views,
    reference_scores,
    score,
    token_log_probs,
    with_made,
)
from vla_jax.training.step import Method, Trained

CONFIG = tiny_config()
PARAMS = tiny_model().params
COPY = jax.tree.map(jnp.copy, PARAMS)
CANDIDATES = (Candidate(0, 0), Candidate(1, 0), Candidate(0, 1))
RANDOM = np.random.default_rng(0)
VIEWS = jnp.array(RANDOM.integers(0, 256, (2, 2, 24, 24, 3)), jnp.uint8)


def new_adapter(targets=r"^language/layers/"):
    return lora.initialise(llava.table(CONFIG), LoraConfig(2, 2.0, targets), jax.random.key(1))


def prompted():
    prefix = RANDOM.integers(4, CONFIG.language.vocab_size, (2, 8))
    prefix[:, 1 : 1 + CONFIG.num_image_tokens] = CONFIG.image_token_id
    responses = RANDOM.integers(4, CONFIG.language.vocab_size, (2, 2, 4))
    mask = np.arange(4) < np.array([[4, 3], [2, 4]])[..., None]
    scored = mask & (np.arange(4) != 1)
    return Prompted(*map(jnp.array, (prefix, np.ones((2, 8), bool), responses, mask, scored)))


PROMPTED = prompted()
FEATURES = jnp.zeros((2, 2, CONFIG.num_image_tokens, CONFIG.language.hidden_size))


# --- sums --------------------------------------------------------------------------------------------

BY_HAND = Scores(
    policy_tokens=jnp.array([[[-1.0, -2.0, -4.0], [-8.0, -16.0, 0.0]]]),
    reference_tokens=jnp.array([[[-1.5, -7.0, -3.0], [-7.0, -9.0, 0.0]]]),
    mask=jnp.array([[[True, False, True], [True, True, False]]]),
)


@pytest.mark.smoke
def test_a_candidate_is_as_likely_as_its_counted_tokens_together():
    np.testing.assert_array_equal(BY_HAND.policy, [[-5.0, -24.0]])
    np.testing.assert_array_equal(BY_HAND.reference, [[-4.5, -16.0]])
    np.testing.assert_array_equal(BY_HAND.log_ratios, [[-0.5, -8.0]])


def test_a_ratio_to_a_reference_that_was_not_scored_is_refused():
    alone = BY_HAND.replace(reference_tokens=None)
    np.testing.assert_array_equal(alone.policy, BY_HAND.policy)
    for read in (lambda: alone.reference, lambda: alone.log_ratios):
        with pytest.raises(ValueError, match="scored without a reference; set needs_reference=True"):
            read()


# --- scoring -----------------------------------------------------------------------------------------


def test_policy_and_reference_are_scored_as_by_the_plain_forward_on_encoded_views():
    adapter = jax.tree.map(lambda x: x + 0.1, new_adapter())

    @jax.jit
    def both(params, adapter):
        features = encode_views(CONFIG, (params, adapter), VIEWS)
        directly = [
            token_log_probs(params, low_rank, CONFIG, features, *PROMPTED[:4], CANDIDATES)
            for low_rank in (adapter, None)
        ]
        known = reference_scores(CONFIG, (params, None), features, PROMPTED, CANDIDATES)
        return score(CONFIG, (params, adapter), features, PROMPTED, CANDIDATES, known), directly

    scores, (policy, reference) = both(PARAMS, adapter)
    np.testing.assert_allclose(scores.policy_tokens, policy, atol=1e-5)
    np.testing.assert_allclose(scores.reference_tokens, reference, atol=1e-5)
    assert (policy != reference).any() and scores.image_words is None
    np.testing.assert_array_equal(scores.mask, PROMPTED.scored[:, jnp.array([0, 0, 1])])


def test_mean_logits_are_those_of_every_logit_and_are_not_differentiated():
    features = jnp.array(RANDOM.normal(size=FEATURES.shape), jnp.float32)

    def mean_logits(params):
        return score(CONFIG, (params, None), features, PROMPTED, CANDIDATES).mean_logits

    counted = PROMPTED.scored[:, 0]
    by_token = every_logit(features[:, 1]).mean(axis=-1)
    expected = (by_token * counted).sum(axis=1) / counted.sum(axis=1)
    np.testing.assert_allclose(jax.jit(mean_logits)(PARAMS)[:, 1], expected, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda params: mean_logits(params).sum()))(PARAMS)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_without_a_reference_none_is_scored():
    def scored(features):
        return score(CONFIG, (PARAMS, None), features, PROMPTED, CANDIDATES)

    assert jax.eval_shape(scored, FEATURES).reference_tokens is None


def test_a_made_response_is_the_likeliest_token_at_every_place_of_the_given_one():
    made = (TeacherForced(view=1, response=0),)
    candidates = (*CANDIDATES, Candidate(0, 2))
    features = jnp.array(RANDOM.normal(size=FEATURES.shape), jnp.float32)

    known = jax.jit(reference_scores, static_argnums=(0, 4, 5))(
        CONFIG, (PARAMS, None), features, PROMPTED, candidates, made
    )
    complete = with_made(PROMPTED, known.made, made)
    np.testing.assert_array_equal(complete.response_tokens[:, 2], known.made[:, 0])
    np.testing.assert_array_equal(complete.response_mask[:, 2], PROMPTED.response_mask[:, 0])
    likeliest = jnp.argmax(every_logit(features[:, 1]), axis=-1)
    np.testing.assert_array_equal(known.made[:, 0], likeliest * PROMPTED.response_mask[:, 0])
    assert known.tokens.shape == (2, 4, 4)
    plain = token_log_probs(PARAMS, None, CONFIG, features, *complete[:4], candidates)
    np.testing.assert_allclose(known.tokens, plain, atol=1e-5)


def every_logit(features):
    """Logits at every place of the first response, by the whole forward."""
    tokens = jnp.concatenate([PROMPTED.prefix_tokens, PROMPTED.response_tokens[:, 0]], axis=1)
    valid = jnp.concatenate([PROMPTED.prefix_mask, PROMPTED.response_mask[:, 0]], axis=1)
    states = llava.hidden_states(PARAMS, CONFIG, tokens, valid, features)
    start = PROMPTED.prefix_tokens.shape[1]
    return llava.logits(PARAMS, states[:, start - 1 : -1])


def test_encoded_views_keep_their_places():
    encode = jax.jit(encode_views, static_argnums=0)
    encoded, turned = (encode(CONFIG, (PARAMS, None), views) for views in (VIEWS, VIEWS[::-1, ::-1]))
    assert encoded.shape == (2, 2, CONFIG.num_image_tokens, CONFIG.language.hidden_size)
    np.testing.assert_allclose(turned, encoded[::-1, ::-1], atol=1e-5)


def test_the_reference_is_never_differentiated():
    def reference_total(params, features):
        return reference_scores(CONFIG, (params, None), features, PROMPTED, CANDIDATES).tokens.sum()

    for slopes in jax.jit(jax.grad(reference_total, argnums=(0, 1)))(PARAMS, FEATURES):
        assert not any(leaf.any() for leaf in jax.tree.leaves(slopes))


# --- how often the vision tower runs -----------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch):
    """How many images each call of the vision tower has encoded, while tracing."""
    calls, original = [], llava.image_features

    def counted(params, config, pixels, *others):
        calls.append(len(pixels))
        return original(params, config, pixels, *others)

    monkeypatch.setattr(llava, "image_features", counted)
    return calls


ONE_RUN, TWO_RUNS = [4], [4, 4]  # 2 rows of 2 views
METHOD = Method(CONFIG, named("mdpo"), optax.identity(), seed=0)
BATCH = Batch(
    VIEWS[:, 0],
    np.zeros((2, 4), np.float32),
    *map(np.asarray, PROMPTED[:5]),
    record_ids=np.arange(2, dtype=np.uint32),
    weights=np.ones(2, np.float32),
)


def log_ratios(trained, base):
    return METHOD.scores(trained, base, BATCH).log_ratios.sum()


@pytest.mark.parametrize(
    "targets, expected",
    [
        (r"^language/layers/", ONE_RUN),
        (r"^(language|projector)/", TWO_RUNS),
        (r"^vision/", TWO_RUNS),
    ],
)
def test_an_adapters_reference_shares_the_image_tokens_unless_the_adapter_is_in_their_way(
    runs, targets, expected
):
    jax.eval_shape(jax.grad(log_ratios), Trained(new_adapter(targets), {}), PARAMS)
    assert runs == expected


def test_what_is_trained_whole_before_the_language_model_is_seen_through_twice(runs):
    trained = Trained(new_adapter(), {"projector": jax.tree.map(jnp.copy, PARAMS["projector"])})
    jax.eval_shape(jax.grad(log_ratios), trained, PARAMS)
    assert runs == TWO_RUNS


def test_full_tuning_encodes_images_for_policy_and_reference(runs):
    jax.eval_shape(jax.grad(log_ratios), Trained(None, PARAMS), COPY)
    assert runs == TWO_RUNS


def test_a_policy_alone_encodes_images_once_with_or_without_their_words(runs):
    for recipe in ("sft", "image_words"):
        runs.clear()
        alone = Method(CONFIG, named(recipe), optax.identity(), seed=0)
        scores = jax.eval_shape(lambda method=alone: method.scores(Trained(None, PARAMS), {}, BATCH))
        assert runs == [2]
        assert (scores.image_words is not None) == (recipe == "image_words")
