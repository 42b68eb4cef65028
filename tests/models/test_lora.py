"""Low-rank adapters: nothing at step 0, then exactly the merged weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_models import tiny_model
from vla_jax.models import LoraConfig, llava, lora
from vla_jax.models.lora import LowRank

EVERYWHERE = LoraConfig(rank=3, alpha=6.0, targets="")
MODEL = tiny_model()
KEY = jax.random.key(0, impl="unsafe_rbg")
TABLE = llava.table(MODEL.config)


def trained(adapter, seed=1):
    """The adapter with both factors drawn at random, as after some training."""
    leaves, tree = jax.tree.flatten(adapter)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [0.3 * rng.normal(size=x.shape).astype(np.float32) for x in leaves])


def adapted_paths(adapter):
    """Paths of the layers an adapter adapts."""
    found = jax.tree_util.tree_leaves_with_path(adapter, is_leaf=lambda node: isinstance(node, LowRank))
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in found}


@jax.jit
def logits(params, adapter):
    """Logits after an image and a few words."""
    image_id, n = MODEL.config.image_token_id, MODEL.config.num_image_tokens
    tokens = jnp.array([[1, *[image_id] * n, 70, 80, 90], [1, *[image_id] * n, 60, 61, 62]])
    pixels = np.random.default_rng(5).normal(size=(2, 24, 24, 3)).astype(np.float32)
    features = llava.image_features(params, MODEL.config, pixels, adapter)
    valid = jnp.ones_like(tokens, bool)
    return llava.logits(params, llava.hidden_states(params, MODEL.config, tokens, valid, features, adapter))


@pytest.mark.smoke
def test_at_step_0_an_adapted_layer_equals_the_base_to_the_bit():
    x, weight, a = (np.random.default_rng(0).normal(size=size) for size in [(2, 3, 8), (8, 6), (8, 2)])
    np.testing.assert_array_equal(
        lora.apply(x, weight, LowRank(a, np.zeros((2, 6)), 0.5)), lora.apply(x, weight, None), strict=True
    )


def test_at_step_0_the_adapted_model_equals_the_base_to_the_bit():
    adapter = lora.initialise(TABLE, LoraConfig(), KEY)
    np.testing.assert_array_equal(logits(MODEL.params, adapter), logits(MODEL.params, None), strict=True)


def test_wherever_it_sits_a_fresh_adapter_changes_no_more_than_the_compilers_rounding():
    adapter = lora.initialise(TABLE, EVERYWHERE, KEY)
    np.testing.assert_allclose(logits(MODEL.params, adapter), logits(MODEL.params, None), atol=1e-5)


def test_merged_weights_equal_the_applied_adapter():
    adapter = trained(lora.initialise(TABLE, EVERYWHERE, KEY))
    applied, base = logits(MODEL.params, adapter), logits(MODEL.params, None)
    np.testing.assert_allclose(logits(lora.merge(MODEL.params, adapter), None), applied, atol=2e-4)
    assert np.abs(applied - base).max() > 0.1


def test_merging_leaves_the_base_alone_and_changes_only_what_is_adapted():
    adapter = trained(lora.initialise(TABLE, LoraConfig(targets="q_proj$"), KEY))
    before = jax.tree.map(np.array, MODEL.params)
    merged = lora.merge(MODEL.params, adapter)
    jax.tree.map(np.testing.assert_array_equal, MODEL.params, before)
    same = jax.tree.map(lambda a, b: a is b, merged, MODEL.params)
    changed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, unchanged in jax.tree_util.tree_leaves_with_path(same)
        if not unchanged
    }
    assert changed == {"vision/layers/q_proj", "language/layers/q_proj"}


def test_merging_no_adapter_gives_the_base():
    assert lora.merge(MODEL.params, None) is MODEL.params


def test_the_default_adapts_every_linear_layer_of_the_language_models_blocks():
    adapter = lora.initialise(TABLE, LoraConfig(), KEY)
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert adapted_paths(adapter) == {f"language/layers/{name}" for name in names}


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("^projector/", {"projector/fc1", "projector/fc2"}),
        ("fc1", {"projector/fc1", "vision/layers/fc1"}),
        ("language/.*[qv]_proj", {"language/layers/q_proj", "language/layers/v_proj"}),
    ],
)
def test_targets_are_searched_in_the_path(targets, expected):
    assert adapted_paths(lora.initialise(TABLE, LoraConfig(targets=targets), KEY)) == expected


def test_only_linear_layers_within_the_model_are_adapted():
    paths = adapted_paths(lora.initialise(TABLE, EVERYWHERE, KEY))
    assert all(path.startswith("projector/") or "/layers/" in path for path in paths)
    assert not [path for path in paths if "bias" in path or "norm" in path]


@pytest.mark.parametrize("targets", ["nothing_here", "norm", "^language/head$", "^language/embedding$"])
def test_targets_that_match_no_linear_layer_are_an_error(targets):
    with pytest.raises(ValueError, match="lora.targets = .* matches no linear layer"):
        lora.initialise(TABLE, LoraConfig(targets=targets), KEY)


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_an_error(rank):
    with pytest.raises(ValueError, match=f"lora.rank is {rank}"):
        lora.initialise(TABLE, LoraConfig(rank=rank), KEY)


def test_a_is_uniform_within_one_over_the_root_of_fan_in_and_b_is_zero():
    adapter = lora.initialise(TABLE, LoraConfig(rank=16), KEY)
    low_rank, bound = adapter["language"]["layers"]["down_proj"], 48**-0.5
    assert low_rank.a.shape == (2, 48, 16)
    assert low_rank.b.shape == (2, 16, 32)
    assert 0.98 * bound < np.abs(low_rank.a).max() <= bound
    assert low_rank.a.std() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not low_rank.b.any()


def test_the_scale_is_alpha_over_rank_and_is_not_trained():
    adapter = lora.initialise(TABLE, LoraConfig(rank=4, alpha=6.0, targets="language/.*q_proj"), KEY)
    assert adapter["language"]["layers"]["q_proj"].scale == 1.5
    assert len(jax.tree.leaves(adapter)) == 2


def test_a_layers_factors_depend_on_its_path_not_on_what_else_is_adapted():
    one = lora.initialise(TABLE, LoraConfig(targets="language/.*q_proj"), KEY)
    all_of_them = lora.initialise(TABLE, LoraConfig(), KEY)
    np.testing.assert_array_equal(
        one["language"]["layers"]["q_proj"].a, all_of_them["language"]["layers"]["q_proj"].a
    )


def test_apply_is_the_layer_plus_the_scaled_low_rank_product():
    rng = np.random.default_rng(0)
    x, weight, a, b = (
        rng.normal(size=size).astype(np.float32) for size in [(2, 3, 8), (8, 6), (8, 2), (2, 6)]
    )
    np.testing.assert_allclose(lora.apply(x, weight, None), x @ weight, atol=1e-5)
    np.testing.assert_allclose(
        lora.apply(x, weight, LowRank(a, b, 0.5)), x @ (weight + 0.5 * a @ b), atol=1e-5
    )
