"""Models of ours as linen modules: the table's tree, and what linen does with it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import errors
from flax import linen as nn

from tests.small_models import draw, tiny_config
from vla_jax.models import Parameter, clip, llama, llava, parameters, reward, sentence_encoder, vit
from vla_jax.models.clip import ClipConfig, TextTowerConfig
from vla_jax.models.linen import Ported
from vla_jax.models.sentence_encoder import SentenceEncoderConfig

CONFIG = SentenceEncoderConfig(
    vocab_size=20, hidden_size=12, intermediate_size=15, num_layers=2, num_heads=3, max_positions=12
)
TABLE = sentence_encoder.table(CONFIG)
ENCODER = Ported(TABLE, partial(sentence_encoder.forward, config=CONFIG))
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 20, (4, 6)))
VALID = jnp.arange(6) < jnp.array([6, 3, 5, 2])[:, None]
forward = jax.jit(sentence_encoder.forward, static_argnums=1)


def is_parameter(node):
    return isinstance(node, Parameter)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(ENCODER.init)(jax.random.key(0), tokens=TOKENS, valid=VALID)


@pytest.fixture(scope="module")
def params():
    return draw(TABLE)


@pytest.mark.smoke
def test_init_gives_the_tables_tree(variables):
    assert variables.keys() == {"params"}
    plain = nn.meta.unbox(variables["params"])
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), plain)
    assert shapes == parameters.abstract(TABLE)


def test_init_draws_with_the_tables_initialisers(variables):
    plain = nn.meta.unbox(variables["params"])
    assert (plain["layers"]["norm1"]["scale"] == 1).all() and not plain["layers"]["norm1"]["bias"].any()
    assert 0.015 < plain["embedding"].std() < 0.025
    layers = plain["layers"]
    assert 0.8 < layers["q_proj"].std() * 12**0.5 < 1.2
    assert not np.array_equal(layers["q_proj"], layers["k_proj"])
    assert not np.array_equal(layers["q_proj"][0], layers["q_proj"][1])


def test_init_boxes_every_parameter_with_its_logical_axes(variables):
    axes = jax.tree.map(lambda p: jax.sharding.PartitionSpec(*p.axes), TABLE, is_leaf=is_parameter)
    assert nn.get_partition_spec(variables)["params"] == axes


def test_the_dtype_is_that_of_the_drawn_parameters():
    half = ENCODER.clone(dtype=jnp.bfloat16)
    drawn = jax.eval_shape(half.init, jax.random.key(0), tokens=TOKENS, valid=VALID)
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.smoke
def test_parameters_from_anywhere_serve_apply(params):
    states = jax.jit(ENCODER.apply)({"params": params}, tokens=TOKENS, valid=VALID)
    np.testing.assert_allclose(states, forward(params, CONFIG, TOKENS, VALID), atol=1e-5)


def test_boxed_and_plain_parameters_give_the_same(variables):
    apply = jax.jit(ENCODER.apply)
    np.testing.assert_array_equal(
        apply(variables, tokens=TOKENS, valid=VALID),
        apply(nn.meta.unbox(variables), tokens=TOKENS, valid=VALID),
    )


def test_a_missing_or_misshapen_parameter_is_named(params):
    layers = params["layers"]
    missing = {**params, "layers": {name: p for name, p in layers.items() if name != "fc1"}}
    misshapen = {**params, "layers": {**layers, "fc1": layers["fc1"][:1]}}
    with pytest.raises(errors.ScopeParamNotFoundError, match='"fc1" in scope "/layers"'):
        ENCODER.apply({"params": missing}, tokens=TOKENS, valid=VALID)
    with pytest.raises(errors.ScopeParamShapeError, match='"fc1" in "/layers"'):
        ENCODER.apply({"params": misshapen}, tokens=TOKENS, valid=VALID)


def test_the_module_can_be_a_static_argument(params):
    @partial(jax.jit, static_argnums=0)
    def run(module, params):
        return module.apply({"params": params}, tokens=TOKENS, valid=VALID)

    np.testing.assert_allclose(run(ENCODER, params), forward(params, CONFIG, TOKENS, VALID), atol=1e-5)


class Rewarder(nn.Module):
    """A linen program around two models of ours: an encoder, a linen layer, a reward head."""

    @nn.compact
    def __call__(self, tokens, valid):
        states = Ported(TABLE, partial(sentence_encoder.forward, config=CONFIG), name="trunk")(
            tokens=tokens, valid=valid
        )
        states = nn.tanh(nn.Dense(7, name="narrow")(states))
        return Ported(reward.table(7), reward.rewards, name="head")(states, valid)


def test_inside_a_larger_program_it_trains(params):
    program, optimizer = Rewarder(), optax.adam(1e-2)
    wanted = jnp.array([1.0, -1.0, 2.0, 0.0])
    variables = nn.meta.unbox(jax.jit(program.init)(jax.random.key(2), TOKENS, VALID))
    assert variables["params"].keys() == {"trunk", "narrow", "head"}
    # Our own weights take the trunk's place.
    start = {**variables["params"], "trunk": params}

    def loss(params):
        return jnp.square(program.apply({"params": params}, TOKENS, VALID) - wanted).mean()

    @jax.jit
    def step(params, state):
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, value

    now, state, losses = start, optimizer.init(start), []
    for _ in range(5):
        now, state, value = step(now, state)
        losses.append(float(value))
    assert losses[-1] < 0.7 * losses[0]
    moved = jax.tree.map(lambda before, after: float(jnp.abs(after - before).max()), start, now)
    assert min(moved["head"]["score"], moved["narrow"]["kernel"]) > 1e-3
    trunk = moved["trunk"]
    assert min(trunk["embedding"], trunk["layers"]["fc1"], trunk["layers"]["norm1"]["scale"]) > 1e-3


PIXELS = jnp.asarray(np.random.default_rng(1).normal(size=(2, 24, 24, 3)), jnp.float32)
LLAVA = tiny_config()
IMAGE = LLAVA.image_token_id
PROMPT = jnp.array([[1, *[IMAGE] * 4, 9, 10], [1, 11, *[IMAGE] * 4, 12]])
CLIP = ClipConfig(
    LLAVA.vision,
    TextTowerConfig(
        hidden_size=12,
        intermediate_size=20,
        num_layers=1,
        num_heads=2,
        vocab_size=20,
        max_positions=8,
        end_id=19,
    ),
    projection_size=6,
)


def read_llava(params, pixels):
    """Logits of a whole LLaVA."""
    features = llava.image_features(params, LLAVA, pixels)
    return llava.logits(params, llava.hidden_states(params, LLAVA, PROMPT, jnp.ones((2, 7), bool), features))


def read_llama(params, pixels):
    """The decoder alone, over something like embeddings."""
    width = LLAVA.language.hidden_size
    x = jnp.resize(pixels, (2, 5, width))
    mask = jnp.tril(jnp.ones((1, 5, 5), bool))
    return llama.forward(params, LLAVA.language, x, jnp.tile(jnp.arange(5), (2, 1)), mask)[0]


def read_clip(params, pixels):
    """Similarities."""
    texts = clip.text_embeddings(params, CLIP, jnp.array([[3, 19, 0], [4, 5, 19]]))
    return clip.logits_per_image(params, clip.image_embeddings(params, CLIP, pixels), texts)


MODELS = {
    "llava": (llava.table(LLAVA), read_llava),
    "vit": (vit.table(LLAVA.vision, ""), lambda params, pixels: vit.forward(params, LLAVA.vision, pixels)),
    "llama": (llama.table(LLAVA.language, "", "head"), read_llama),
    "clip": (clip.table(CLIP), read_clip),
}


@pytest.mark.parametrize("name", MODELS)
def test_any_ported_model_has_init_and_apply(name):
    table, read = MODELS[name]
    module = Ported(table, read)
    variables = jax.jit(module.init)(jax.random.key(0), PIXELS)
    shapes = jax.tree.map(jnp.shape, nn.meta.unbox(variables["params"]))
    assert shapes == jax.tree.map(lambda p: p.shape, table, is_leaf=is_parameter)
    params = draw(table)
    made = jax.jit(module.apply)({"params": params}, PIXELS)
    np.testing.assert_allclose(made, jax.jit(read)(params, PIXELS), atol=1e-5)
    assert made.std() > 0
