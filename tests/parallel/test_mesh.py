"""The mesh: its sizes, where arrays live on it, and a training step that does not notice it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from tests.small_models import tiny_config, tiny_model
from vla_jax.data import Encoder
from vla_jax.data.batches import collate
from vla_jax.data.world import PreferenceWorld, WorldConfig
from vla_jax.models import llava, parameters
from vla_jax.parallel import batch_sharding, make_mesh, parameter_shardings, replicated
from vla_jax.recipes import named
from vla_jax.training.step import Method, Trained, make_step

REPOSITORY = Path(__file__).resolve().parents[2]
DEVICES = 8


# --- what the subprocess with eight virtual devices does ---------------------------------------------


def train(mesh, steps=2):
    """Losses of a few LPOI steps that train all parameters, and shapes of shards after them."""
    model, recipe = tiny_model(), named("lpoi", {"num_views": 3})
    encoder = Encoder(
        model.tokenizer, model.processor, 4, recipe.responses, max_prompt_length=24, max_completion_length=24
    )
    world = PreferenceWorld(WorldConfig(), DEVICES)
    batch = collate([encoder.encode(world[i]) for i in range(DEVICES)], encoder)
    axes = parameters.logical_axes(llava.table(model.config))
    placement = parameter_shardings(mesh, model.params, axes)
    method = Method(model.config, recipe, optax.adamw(1e-3), seed=0)
    base = jax.device_put(model.params, placement)
    state = method.init(Trained(None, jax.device_put(jax.tree.map(jnp.copy, model.params), placement)))
    moments = state.optimizer_state[0].mu.params
    shapes = {"before": shard_shapes(state.trained.params), "moments": shard_shapes(moments)}
    step, losses = make_step(method), []
    for _ in range(steps):
        state, metrics = step(state, base, jax.device_put(batch, batch_sharding(mesh)))
        losses.append(float(metrics["loss"]))
    return {"losses": losses, **shapes, "after": shard_shapes(state.trained.params)}


def shard_shapes(params):
    """Shape of what one device holds of some parameters."""
    language = params["language"]
    arrays = {
        "embedding": language["embedding"],
        "q_proj": language["layers"]["q_proj"],
        "norm": language["norm"],
    }
    return {name: array.addressable_shards[0].data.shape for name, array in arrays.items()}


def compare_meshes():
    """Prints, as JSON, what `train` gives on one device and on two meshes of eight."""
    assert jax.device_count() == DEVICES
    meshes = {
        "1x1x1": make_mesh(1, 1, 1, devices=jax.devices()[:1]),
        "4x2x1": make_mesh(4, 2, 1),
    }
    print(json.dumps({name: train(mesh) for name, mesh in meshes.items()}))


# --- specifications ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_meshes():
    # Compiling is nearly all of the work here, so the compiler is asked for less.
    flags = f"--xla_force_host_platform_device_count={DEVICES} --xla_backend_optimization_level=0"
    run = subprocess.run(
        [sys.executable, "-c", "from tests.parallel import test_mesh; test_mesh.compare_meshes()"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_mesh_trains_as_one_device_does(on_meshes):
    single, mesh = (on_meshes[name]["losses"] for name in ("1x1x1", "4x2x1"))
    np.testing.assert_allclose(mesh, single, atol=1e-5, rtol=0)
    assert single[1] < single[0] - 1e-3


@pytest.mark.slow
def test_parameters_and_moments_are_really_split_over_fsdp(on_meshes):
    words, width = tiny_config().language.vocab_size, 32
    whole = {"embedding": [words, width], "q_proj": [2, width, width], "norm": [width]}
    halves = {"embedding": [words, width // 2], "q_proj": [2, width // 2, width], "norm": [width // 2]}
    assert on_meshes["1x1x1"]["before"] == whole
    for when in ("before", "moments", "after"):
        assert on_meshes["4x2x1"][when] == halves, when


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
