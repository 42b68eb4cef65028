"""Responses as forks of sequences read once, against a model that reads everything anew at every step."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.rollout.small_prompts import IMAGE, MASK, MODEL, TOKENS, image_tokens, trained_adapter
from tests.virtual_devices import DEVICES, on_virtual_devices
from vla_jax.models import llava, parameters
from vla_jax.models.compute import Compute
from vla_jax.models.target import Target
from vla_jax.parallel import batch_sharding, make_mesh, parameter_shardings
from vla_jax.rollout import Sampling, decode, prefill, sample
from vla_jax.rollout.plain import plain_greedy, plain_logits

STEPS = 5
DECODERS = {
    "looped": ({}, Compute()),
    "written out": ({}, Compute(unroll=True)),
    "written out in decoding": ({}, Compute(unroll_decoding=True)),
    "a window": ({"sliding_window": 4}, Compute()),
    "a window in some layers": ({"sliding_window": 4, "full_layers": 1}, Compute(unroll=True)),
}
# Prompts with answers of unequal lengths behind them, and where forks of each begin.
ANSWERS = np.random.default_rng(1).integers(4, 90, (3, 4)).astype(np.int32)
READ = np.concatenate([TOKENS, ANSWERS], axis=1)
READ_MASK = np.concatenate([MASK, np.arange(4) < np.array([[4], [2], [3]])], axis=1)
STARTS = np.array([[9, 13, 11], [8, 10, 11], [12, 10, 9]], np.int32)


def of(decoder):
    """A configuration and how it is computed."""
    fields, compute = DECODERS[decoder]
    return replace(MODEL.config, language=replace(MODEL.config.language, **fields)), compute


def cut(starts, *arrays):
    """Each row's first places, as many as its start says, moved to the right end."""
    rows = np.arange(len(starts))[:, None]
    places = np.arange(READ.shape[1]) - READ.shape[1] + starts[:, None]
    kept = places >= 0
    return [np.where(kept, array[rows, np.maximum(places, 0)], 0).astype(array.dtype) for array in arrays]


def assert_reads_on(tokens, log_probs, config, adapter, features, prompt, mask, keep=None):
    """The tokens are the likeliest at every step of whole forwards, with these log-probabilities."""
    expected = plain_greedy(MODEL.params, adapter, config, features, prompt, mask, STEPS, keep)
    np.testing.assert_array_equal(tokens, expected)
    whole, room = np.concatenate([prompt, tokens], axis=1), np.ones(tokens.shape, bool)
    seen = None if keep is None else np.concatenate([keep, room], axis=1)
    logits = plain_logits(
        MODEL.params, adapter, config, features, whole, np.concatenate([mask, room], axis=1), seen
    )
    said = jax.nn.log_softmax(logits[:, prompt.shape[1] - 1 : -1])
    chosen = jnp.take_along_axis(said, jnp.asarray(tokens)[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(log_probs, chosen, atol=1e-5)


@pytest.mark.smoke
@pytest.mark.parametrize("decoder", DECODERS)
def test_forks_say_what_separate_prefills_would(decoder):
    config, compute = of(decoder)
    prefilled = prefill(
        MODEL.params, None, config, image_tokens(), READ, READ_MASK, starts=STARTS, compute=compute
    )
    made = decode(MODEL.params, None, config, prefilled, Sampling(STEPS), compute=compute)
    assert made.tokens.shape == (3, 3, STEPS) and made.mask.all()
    for fork in range(STARTS.shape[1]):
        prompt, mask = cut(STARTS[:, fork], READ, READ_MASK)
        assert_reads_on(
            made.tokens[:, fork], made.log_probs[:, fork], config, None, image_tokens(), prompt, mask
        )


@pytest.mark.parametrize("decoder", DECODERS)
def test_long_responses_read_on_in_caches_that_grow(decoder):
    config, compute = of(decoder)
    long = Sampling(140, temperature=1.0)
    made = sample(
        MODEL.params, None, config, image_tokens(), TOKENS, MASK, long, jax.random.key(1), compute=compute
    )
    assert made.mask.all()
    whole = np.concatenate([TOKENS, made.tokens[:, 0]], axis=1)
    seen = np.concatenate([MASK, made.mask[:, 0]], axis=1)
    logits = plain_logits(MODEL.params, None, config, image_tokens(), whole, seen)
    said = jax.nn.log_softmax(logits[:, TOKENS.shape[1] - 1 : -1])
    chosen = jnp.take_along_axis(said, made.tokens[:, 0, :, None], axis=2)[..., 0]
    np.testing.assert_allclose(made.log_probs[:, 0], chosen, atol=1e-5)


def test_what_stands_behind_a_start_is_not_seen():
    others = READ.copy()
    others[:, 11:] = 77
    first, second = (
        decode(
            MODEL.params,
            None,
            MODEL.config,
            prefill(
                MODEL.params,
                None,
                MODEL.config,
                image_tokens(),
                tokens,
                READ_MASK,
                starts=np.minimum(STARTS, 11),
            ),
            Sampling(STEPS),
        )
        for tokens in (READ, others)
    )
    np.testing.assert_array_equal(first.log_probs, second.log_probs)


@pytest.mark.parametrize("decoder", ["looped", "a window in some layers"])
def test_hidden_keys_are_hidden_from_every_query_and_positions_stay(decoder):
    config, compute = of(decoder)
    keep = (READ != IMAGE) | (np.random.default_rng(2).random(READ.shape) < 0.4)
    assert (~keep & READ_MASK).any(axis=1).all()
    features = image_tokens()
    prefilled = prefill(MODEL.params, None, config, features, READ, READ_MASK, keep, STARTS, compute)
    made = decode(MODEL.params, None, config, prefilled, Sampling(STEPS), compute=compute)
    for fork in range(STARTS.shape[1]):
        prompt, mask, seen = cut(STARTS[:, fork], READ, READ_MASK, keep)
        assert_reads_on(
            made.tokens[:, fork], made.log_probs[:, fork], config, None, features, prompt, mask, seen
        )
    unguided = decode(
        MODEL.params,
        None,
        config,
        prefill(MODEL.params, None, config, features, READ, READ_MASK, starts=STARTS, compute=compute),
        Sampling(STEPS),
        compute=compute,
    )
    assert not np.allclose(made.log_probs, unguided.log_probs, atol=1e-3)


@pytest.mark.parametrize("keep", ["nothing", "what is not the image"])
@pytest.mark.parametrize("decoder", ["looped", "written out", "a window"])
def test_forks_of_what_can_see_nothing_do_not_see_what_stands_behind_them_either(decoder, keep):
    """Right behind a hidden image as long as the window, or where everything is hidden."""
    config, compute = of(decoder)
    tokens = np.array([[1, *[IMAGE] * 4, 50, 60, 70]] * 3, np.int32)
    others, mask = np.where(np.arange(8) >= 5, 77, tokens), np.ones(tokens.shape, bool)
    kept = np.zeros(tokens.shape, bool) if keep == "nothing" else tokens != IMAGE
    starts = np.full((3, 1), 5, np.int32)
    first, second = (
        decode(
            MODEL.params,
            None,
            config,
            prefill(MODEL.params, None, config, image_tokens(), read, mask, kept, starts, compute),
            Sampling(STEPS),
            compute=compute,
        )
        for read in (tokens, others)
    )
    np.testing.assert_array_equal(first.log_probs, second.log_probs)
    assert_reads_on(
        *(first.tokens[:, 0], first.log_probs[:, 0], config, None),
        *(image_tokens(), tokens[:, :5], mask[:, :5], kept[:, :5]),
    )


def test_without_starts_responses_begin_behind_the_last_token_of_each_row():
    ends = READ.shape[1] - READ_MASK[:, ::-1].argmax(1)
    model = MODEL.params, trained_adapter(), MODEL.config
    both = [
        decode(
            *model, prefill(*model, image_tokens(), READ, READ_MASK, starts=starts), Sampling(STEPS)
        ).log_probs
        for starts in (None, ends[:, None].astype(np.int32))
    ]
    np.testing.assert_array_equal(*both)


def test_several_responses_of_a_start_stand_side_by_side():
    """Tokens are drawn apart, and the cache of one is not another's: the scorer's test holds them to that."""
    sampling, key = Sampling(STEPS, temperature=1.0), jax.random.key(0)
    model = MODEL.params, None, MODEL.config
    prefilled = prefill(*model, image_tokens(), READ, READ_MASK, starts=STARTS[:, :2])
    made = decode(*model, prefilled, sampling, key, count=3)
    assert made.tokens.shape == (3, 6, STEPS)
    for row in range(3):
        assert len(np.unique(made.tokens[row], axis=0)) == 6
    greedy = decode(*model, prefilled, Sampling(1), count=3)
    np.testing.assert_array_equal(greedy.tokens[:, 0], greedy.tokens[:, 2])
    assert (greedy.tokens[:, 0] != greedy.tokens[:, 3]).any()


def test_keys_are_one_for_all_or_one_for_each_response():
    model, sampling = (MODEL.params, None, MODEL.config), Sampling(STEPS, temperature=1.0)
    prefilled = prefill(*model, image_tokens(), READ, READ_MASK)
    each = jax.random.split(jax.random.key(0), (3, 3))
    together = decode(*model, prefilled, sampling, each, count=3)
    for response in range(3):
        alone = decode(*model, prefilled, sampling, each[:, response, None])
        np.testing.assert_array_equal(together.tokens[:, response], alone.tokens[:, 0])
    with pytest.raises(ValueError, match=r"keys of shape \(3, 1\) for responses of shape \(3, 3\)"):
        decode(*model, prefilled, sampling, each[:, :1], count=3)


def test_batches_of_one_shape_share_their_programs(compilations):
    def answer(tokens, seed):
        sampling = Sampling(3, end_ids=(2,), temperature=1.0, top_p=0.9)
        return sample(
            MODEL.params, None, MODEL.config, image_tokens(), tokens, MASK, sampling, jax.random.key(seed)
        )

    answer(TOKENS, 0)
    compilations.clear()
    answer(np.where(TOKENS == 70, 71, TOKENS), 1)
    assert compilations == []


# --- what the subprocess with eight virtual devices does ---------------------------------------------


def on_meshes():
    """Greedy and sampled forks of eight rows on one device, on rows apart and on heads apart."""
    language = {"num_heads": 8, "num_kv_heads": 8, "hidden_size": 64, "head_dim": 8}
    config = replace(MODEL.config, language=replace(MODEL.config.language, **language))
    table = llava.table(config)
    params = parameters.initialise(table, jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(1), p.shape), params)
    rows = np.arange(DEVICES) % 3
    features = np.random.default_rng(0).normal(size=(DEVICES, 4, 64)).astype(np.float32)
    inputs = features, READ[rows], READ_MASK[rows]

    def made(params, inputs, starts, compute):
        prefilled = prefill(params, None, config, *inputs, starts=starts, compute=compute)
        both = []
        for temperature in (0.0, 1.0):
            sampling = Sampling(STEPS, temperature=temperature)
            forks = decode(params, None, config, prefilled, sampling, jax.random.key(5), compute=compute)
            both.append([np.asarray(part).tolist() for part in (forks.tokens, forks.log_probs)])
        return both

    results = {"single": made(params, inputs, STARTS[rows], Compute(unroll=True))}
    for name, sizes, written_out in (
        ("rows apart", (4, 2, 1), {}),
        ("rows apart, decoding written out", (4, 2, 1), {"unroll_decoding": True}),
        ("heads apart", (2, 2, 2), {"unroll": True}),
    ):
        mesh = make_mesh(*sizes)
        placed = jax.device_put(params, parameter_shardings(mesh, params, parameters.logical_axes(table)))
        apart = jax.device_put(inputs, batch_sharding(mesh))
        target = Target("cpu", rows=("data", "fsdp"), heads="tensor")
        with jax.set_mesh(mesh):
            starts = jax.device_put(STARTS[rows], batch_sharding(mesh))
            results[name] = made(placed, apart, starts, Compute(target=target, **written_out))
    return results


def test_rows_on_a_mesh_say_what_they_say_on_one_device():
    results = on_virtual_devices(__name__, "on_meshes")
    single = results.pop("single")
    assert len(results) == 3
    for name, both in results.items():
        for (tokens, log_probs), (expected, scores) in zip(both, single, strict=True):
            np.testing.assert_array_equal(tokens, expected, err_msg=name)
            np.testing.assert_allclose(log_probs, scores, atol=1e-5, err_msg=name)
