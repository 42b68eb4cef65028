"""Candidates as branches of shared prefixes against the plain forward, which reads each on its own."""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_models import tiny_model
from vla_jax.models import llava, lora
from vla_jax.models.compute import Compute
from vla_jax.models.lora import LoraConfig
from vla_jax.scoring import Candidate, Prompted, score, token_log_probs, vocabulary

# One view and one to eight responses; several views; branches at some views only; views in any order.
LAYOUTS = {
    **{f"{count} branches": tuple(Candidate(0, i) for i in range(count)) for count in (1, 3, 8)},
    "a list of views": tuple(Candidate(view, 0) for view in range(5)),
    "a list of views and a pair": (*(Candidate(view, 0) for view in range(3)), Candidate(0, 1)),
    "views that nothing reads": (Candidate(3, 1), Candidate(1, 0), Candidate(3, 0)),
    "the same twice": (Candidate(0, 0), Candidate(0, 0)),
}
DECODERS = {
    "llama": {},
    "a window": {"sliding_window": 5},
    "a window in some layers": {"sliding_window": 5, "full_layers": 1},
    "tied, unrolled, with biases": {"tie_embeddings": True, "unroll": True, "qkv_bias": True},
}
PROMPTS, ANSWERS = (9, 12, 5), (6, 1, 4, 3, 6, 2, 5, 1)


def drawn(config, views=5, seed=0):
    """Features of every view, and rows of unequal lengths; the last row has no image."""
    random = np.random.default_rng(seed)
    rows, n = len(PROMPTS), config.num_image_tokens
    prefix, prefix_mask = np.zeros((rows, 12), int), np.zeros((rows, 12), bool)
    for i, length in enumerate(PROMPTS):
        prefix[i, -length:] = random.integers(4, config.language.vocab_size, length)
        prefix_mask[i, -length:] = True
        if i < rows - 1:
            prefix[i, 1 - length : 1 - length + n] = config.image_token_id
    answers = random.integers(4, config.language.vocab_size, (rows, len(ANSWERS), 6))
    lengths = np.array([np.roll(ANSWERS, i) for i in range(rows)])
    mask = np.arange(6) < lengths[..., None]
    features = random.normal(size=(rows, views, n, config.language.hidden_size))
    return jnp.array(features, jnp.float32), Prompted(
        *map(jnp.array, (prefix, prefix_mask, answers, mask, mask))
    )


def adapter_of(config):
    """One that does something: its B matrices are not zero."""
    fresh = lora.initialise(llava.table(config), LoraConfig(rank=2, alpha=2.0), jax.random.key(1))
    return jax.tree.map(lambda x: x + 0.05, fresh)


def shared(params, adapter, config, features, prompted, candidates, compute=Compute()):  # noqa: B008
    return score(config, (params, adapter), features, prompted, candidates, compute=compute).policy_tokens


def plain(params, adapter, config, features, prompted, candidates):
    return token_log_probs(params, adapter, config, features, *prompted[:4], candidates)


@functools.cache
def every_candidate(with_adapter):
    """The model, its inputs, and each response under each view by the plain forward."""
    model = tiny_model()
    adapter = adapter_of(model.config) if with_adapter else None
    inputs = (model.params, adapter, *drawn(model.config))
    pairs = tuple((view, response) for view in range(5) for response in range(len(ANSWERS)))
    whole = jax.jit(lambda params, adapter, *rows: plain(params, adapter, model.config, *rows, pairs))(
        *inputs
    )
    return model, inputs, whole.reshape(len(PROMPTS), 5, len(ANSWERS), -1)


@pytest.mark.smoke
@pytest.mark.parametrize("with_adapter", [False, True])
def test_log_probs_are_the_plain_forwards(with_adapter):
    model, inputs, expected = every_candidate(with_adapter)

    @jax.jit
    def all_layouts(params, adapter, *rows):
        return {
            name: shared(params, adapter, model.config, *rows, layout) for name, layout in LAYOUTS.items()
        }

    for name, made in all_layouts(*inputs).items():
        views, responses = zip(*LAYOUTS[name], strict=True)
        assert made.dtype == jnp.float32
        np.testing.assert_allclose(made, expected[:, views, responses], atol=1e-5, rtol=0, err_msg=name)


def gradients(function, wanted, *arguments):
    """Slopes of a sum whose weights differ, so that exchanged tokens would show."""
    return gradient_of(function, wanted)(*arguments)


def gradient_of(function, wanted):
    """The compiled function that `gradients` calls."""

    def total(trained, fixed, features, prompted, config, candidates, compute):
        params, adapter = (trained, fixed) if wanted == "params" else (fixed, trained)
        extra = () if function is plain else (compute,)
        made = function(params, adapter, config, features, prompted, candidates, *extra)
        return jnp.sum(jnp.linspace(-1, 1, made.size).reshape(made.shape) * made)

    slopes = jax.grad(total, argnums=(0, 2))
    return jax.jit(slopes, static_argnums=(4, 5, 6))


def assert_same(made, expected):
    for ours, theirs in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * max(1e-3, float(jnp.abs(theirs).max())))


@functools.cache
def expected_gradients(decoder, wanted, layout="a list of views and a pair"):
    """What `gradients` is given, and the plain forward's slopes."""
    model = tiny_model(language=DECODERS[decoder])
    adapter = adapter_of(model.config)
    trees = (model.params, adapter) if wanted == "params" else (adapter, model.params)
    arguments = (*trees, *drawn(model.config), model.config, LAYOUTS[layout])
    return arguments, gradients(plain, wanted, *arguments, Compute())


@pytest.mark.parametrize(
    "decoder, wanted", [*((decoder, "params") for decoder in DECODERS), ("llama", "adapter")]
)
def test_gradients_are_the_plain_forwards(decoder, wanted):
    arguments, expected = expected_gradients(decoder, wanted)
    assert_same(gradients(shared, wanted, *arguments, Compute()), expected)


def test_gradients_of_eight_branches_are_the_plain_forwards():
    arguments, expected = expected_gradients("llama", "adapter", "8 branches")
    assert_same(gradients(shared, "adapter", *arguments, Compute()), expected)


@pytest.mark.parametrize("remat", ["block", "dots", "offload"])
def test_what_the_backward_pass_keeps_changes_nothing(remat):
    arguments, expected = expected_gradients("llama", "adapter")
    assert_same(gradients(shared, "adapter", *arguments, Compute(remat=remat)), expected)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("remat, more", [("block", 1.2), ("dots", 1.03)])
def test_what_is_not_kept_is_computed_again(remat, more, unroll):
    """Where layers are written out, XLA would merge some of it with what was computed before."""
    arguments, _ = expected_gradients("llama", "adapter")

    def operations(compute):
        lowered = gradient_of(shared, "adapter").lower(*arguments, compute)
        return lowered.compile().cost_analysis()["flops"]

    assert operations(Compute(remat=remat, unroll=unroll)) > more * operations(Compute(unroll=unroll))


def test_offload_sends_the_products_with_weights_to_the_hosts_memory_and_back():
    """As lowered for accelerators; what a CPU keeps lies in the memory of the host anyway."""
    arguments, _ = expected_gradients("llama", "adapter")

    def moves(remat, platform):
        traced = gradient_of(shared, "adapter").trace(*arguments, Compute(remat=remat))
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        return tuple(
            program.count(f'_xla_buffer_placement = "{memory}"') for memory in ("pinned_host", "device")
        )

    for platform in ("tpu", "cuda"):
        there, back = moves("offload", platform)
        # q, k, v, o, gate, up and down, each with its adapter; the loop over layers stands there once.
        assert there == back >= 7
        assert moves("dots", platform) == (0, 0)
    assert moves("offload", "cpu") == (0, 0)


@pytest.mark.parametrize("chunk, wanted", [(1, "params"), (60, "params"), (60, "adapter")])
def test_chunks_of_the_vocabulary_change_nothing(monkeypatch, chunk, wanted):
    """12 sequences of 6 tokens: one of each at a time; five of each, which leaves a chunk of a single one."""
    arguments, expected = expected_gradients("llama", wanted)
    monkeypatch.setattr(vocabulary, "_CHUNK", chunk)
    assert_same(gradients(shared, wanted, *arguments, Compute()), expected)


def test_an_array_of_all_logits_never_exists(monkeypatch):
    """Neither forward nor backward, whether the vocabulary's matrix is trained or not."""
    monkeypatch.setattr(vocabulary, "_CHUNK", 9)
    model = tiny_model()
    features, prompted = drawn(model.config)
    words = model.config.language.vocab_size

    def total(params, adapter):
        return shared(params, adapter, model.config, features, prompted, LAYOUTS["3 branches"]).sum()

    for argument in (0, 1):
        program = jax.make_jaxpr(jax.grad(total, argnums=argument))(model.params, adapter_of(model.config))
        logits = [shape for shape in shapes(program.jaxpr) if shape[-1:] == (words,) and len(shape) > 1]
        # One row of zeros, one product with the matrix, and chunks.
        tokens = {int(np.prod(shape[:-1])) for shape in logits}
        assert tokens <= {1, 9, model.config.language.hidden_size}, tokens
        assert 9 in tokens


def shapes(jaxpr):
    """Shapes of every value of a program and of the programs in it."""
    for equation in jaxpr.eqns:
        yield from (out.aval.shape for out in equation.outvars)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from shapes(inner)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close_and_gives_float32(dtype):
    model, (params, adapter, features, prompted), expected = every_candidate(True)
    half = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    layout = LAYOUTS["a list of views and a pair"]
    made = jax.jit(lambda *inputs: shared(*inputs[:2], model.config, *inputs[2:], layout))(
        half, adapter, features.astype(dtype), prompted
    )
    views, responses = zip(*layout, strict=True)
    assert made.dtype == jnp.float32
    np.testing.assert_allclose(made, expected[:, views, responses], atol=0.1)


def test_a_padded_row_and_an_empty_answer_are_finite_and_leave_the_others_alone():
    model, (params, adapter, features, prompted), expected = every_candidate(True)
    layout = LAYOUTS["a list of views and a pair"]
    emptied = prompted._replace(
        prefix_mask=prompted.prefix_mask.at[1].set(False),
        response_mask=prompted.response_mask.at[1].set(False).at[2, 0].set(False),
    )

    def total(adapter, params, features, prompted):
        made = shared(params, adapter, model.config, features, prompted, layout)
        return made.sum(), made

    slopes, made = jax.jit(jax.grad(total, has_aux=True))(adapter, params, features, emptied)
    views, responses = zip(*layout, strict=True)
    np.testing.assert_allclose(made[0], expected[0, views, responses], atol=1e-5)
    assert not made[1].any() and not made[2, :3].any()
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(slopes))
