"""The mesh: its sizes, where arrays live on it, and a training step that does not notice it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from tests.small_models import tiny_config, tiny_model
from tests.virtual_devices import DEVICES, on_virtual_devices
from vla_jax.data import Encoder
from vla_jax.data.batches import collate
from vla_jax.data.world import PreferenceWorld, WorldConfig
from vla_jax.models import llava, parameters
from vla_jax.models.compute import Compute
from vla_jax.models.target import Target
from vla_jax.parallel import (
    RULES,
    batch_sharding,
    loading,
    make_mesh,
    on_mesh,
    parameter_shardings,
    replicated,
)
from vla_jax.recipes import named
from vla_jax.training.step import Method, Trained, make_step

STEPS = 20
MESHES = {"8x1x1": (8, 1, 1), "1x8x1": (1, 8, 1), "1x1x8": (1, 1, 8), "2x2x2": (2, 2, 2)}


# --- what the subprocess with eight virtual devices does ---------------------------------------------


def divisible_model():
    """A tiny model of which every axis that a mesh axis may split has a multiple of eight entries."""
    return tiny_model(
        vision={"num_heads": 8, "hidden_size": 64, "intermediate_size": 64},
        language={"num_heads": 8, "num_kv_heads": 8, "hidden_size": 64, "vocab_size": 512},
    )


def train(mesh):
    """Losses of LPOI steps that train all parameters, and the shards of what is trained and its moments."""
    model, recipe = divisible_model(), named("lpoi", {"num_views": 3})
    encoder = Encoder(
        model.tokenizer, model.processor, 4, recipe.responses, max_prompt_length=24, max_completion_length=24
    )
    world = PreferenceWorld(WorldConfig(), DEVICES)
    batch = collate([encoder.encode(world[i]) for i in range(DEVICES)], encoder)
    placement = parameter_shardings(mesh, model.params, logical_axes(model))
    target = Target("cpu", rows=("data", "fsdp"), heads="tensor") if mesh.size > 1 else None
    method = Method(model.config, recipe, optax.adamw(1e-3), 0, Compute(target=target))
    base = jax.device_put(model.params, placement)
    with jax.set_mesh(mesh):
        trained = Trained(None, jax.device_put(jax.tree.map(jnp.copy, model.params), placement))
        state = on_mesh(mesh, method.init(trained))
        before = shard_shapes(state)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        step, losses = make_step(method, placement=(shardings, replicated(mesh))), []
        for _ in range(STEPS):
            state, metrics = step(state, base, jax.device_put(batch, batch_sharding(mesh)))
            losses.append(float(metrics["loss"]))
    return {"losses": losses, "before": before, "after": shard_shapes(state)}


def logical_axes(model):
    return parameters.logical_axes(llava.table(model.config))


def shard_shapes(state):
    """Parameters and moments -> path -> shape of what one device holds."""
    moments = state.optimizer_state[0]
    trees = {"parameters": state.trained.params, "mu": moments.mu.params, "nu": moments.nu.params}
    return {
        name: {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.addressable_shards[0].data.shape
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for name, tree in trees.items()
    }


def compare_meshes():
    """What `train` gives on one device and on meshes of eight."""
    assert jax.device_count() == DEVICES
    single = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    with loading():
        assert jnp.zeros(3).devices() == {jax.local_devices(backend="cpu")[0]}
    return {"1x1x1": train(single), **{name: train(make_mesh(*sizes)) for name, sizes in MESHES.items()}}


# --- specifications ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_meshes():
    return on_virtual_devices("tests.parallel.test_mesh", "compare_meshes")


@pytest.mark.slow
@pytest.mark.parametrize("name", MESHES)
def test_a_mesh_trains_as_one_device_does(on_meshes, name):
    single, mesh = on_meshes["1x1x1"]["losses"], on_meshes[name]["losses"]
    assert len(mesh) == STEPS
    np.testing.assert_allclose(mesh, single, atol=1e-5, rtol=0)
    assert single[-1] < single[0] - 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", MESHES)
def test_every_parameter_and_moment_is_split_as_the_rules_say(on_meshes, name):
    sizes = dict(zip(("data", "fsdp", "tensor"), MESHES[name], strict=True))
    model = divisible_model()
    axes = jax.tree.leaves(logical_axes(model), is_leaf=lambda leaf: isinstance(leaf, tuple))
    expected, split = {}, 0
    for (path, leaf), names in zip(jax.tree_util.tree_leaves_with_path(model.params), axes, strict=True):
        parts = [sizes.get(RULES.get(axis, ""), 1) for axis in names]
        shape = [size // part for size, part in zip(leaf.shape, parts, strict=True)]
        expected[jax.tree_util.keystr(path, simple=True, separator="/")] = shape
        split += shape != list(leaf.shape)
    for when in ("before", "after"):
        for what in ("parameters", "mu", "nu"):
            assert on_meshes[name][when][what] == expected, (when, what)
    # Of 39: data splits none, fsdp those that have a width, tensor those of heads, feed-forward and words.
    assert split == {"8x1x1": 0, "1x8x1": 35, "1x1x8": 19, "2x2x2": 39}[name]


def devices(count):
    """Stand-ins are enough to count by; a mesh that fits is made of real ones."""
    return jax.devices()[:1] * count


@pytest.mark.smoke
def test_the_axes_are_data_fsdp_and_tensor_and_data_takes_what_is_left():
    mesh = make_mesh(devices=devices(1))
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    "sizes", [(3, 1, 1), (-1, 3, 1), (-1, 0, 1), (-1, -1, 1), (0, 8, 1), (-1, 16, 1), (-2, -4, 1), (4, 4, 1)]
)
def test_sizes_that_do_not_make_the_number_of_devices_are_an_error(sizes):
    with pytest.raises(ValueError, match="does not fit 8 devices"):
        make_mesh(*sizes, devices=devices(8))


def abstract_mesh(data, fsdp, tensor):
    return jax.sharding.AbstractMesh((data, fsdp, tensor), ("data", "fsdp", "tensor"))


def specs(mesh):
    """Where each parameter of the tiny model goes."""
    table = llava.table(tiny_config())
    placed = parameter_shardings(mesh, parameters.abstract(table), parameters.logical_axes(table))
    return jax.tree.map(lambda sharding: sharding.spec, placed)


def test_widths_go_to_fsdp_and_heads_feed_forward_and_words_to_tensor():
    language = specs(abstract_mesh(2, 2, 2))["language"]
    assert language["layers"]["q_proj"] == PartitionSpec(None, "fsdp", "tensor")
    assert language["layers"]["o_proj"] == PartitionSpec(None, "tensor", "fsdp")
    assert language["layers"]["up_proj"] == PartitionSpec(None, "fsdp", "tensor")
    assert language["embedding"] == PartitionSpec("tensor", "fsdp")
    assert language["norm"] == PartitionSpec("fsdp")


def test_a_dimension_its_mesh_axis_does_not_divide_is_not_split():
    words = tiny_config().language.vocab_size
    assert words % 4
    assert specs(abstract_mesh(1, 2, 4))["language"]["embedding"] == PartitionSpec(None, "fsdp")


def test_what_has_no_rule_is_replicated():
    assert specs(abstract_mesh(2, 2, 2))["vision"]["patch"] == PartitionSpec(None, None, None, "fsdp")
    assert replicated(abstract_mesh(2, 2, 2)).spec == PartitionSpec()


def test_rows_of_a_batch_are_spread_over_data_and_fsdp():
    assert batch_sharding(abstract_mesh(2, 2, 2)).spec == PartitionSpec(("data", "fsdp"))
