"""A small model's step, compiled for a TPU pod that is not there."""

import math
import os
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import pytest

from vla_jax.data.image_processing import ImageProcessor
from vla_jax.interop import Model
from vla_jax.models import LlamaConfig, LlavaConfig, ViTConfig, llava, parameters
from vla_jax.training.aot import trace_step, with_kernel
from vla_jax.training.configuration import default_config
from vla_jax.training.topology import chip_of, devices_of

needs_libtpu = pytest.mark.skipif(
    find_spec("libtpu") is None, reason="libtpu is not installed (extra `pods`)"
)


def small_model():
    config = LlavaConfig(
        ViTConfig(image_size=28, hidden_size=64, intermediate_size=64, num_layers=2, num_heads=2),
        LlamaConfig(512, 256, 256, num_layers=2, num_heads=2, num_kv_heads=2),
        image_token_id=500,
    )
    shapes = parameters.abstract(llava.table(config), jnp.bfloat16)
    return Model(config, shapes, None, ImageProcessor.square(28))


def configured(**settings):
    config = default_config()
    config.recipe = "dpo"
    config.data.max_prompt_length = config.data.max_completion_length = 128
    config.lora.rank = 4
    config.train.batch_size, config.train.microbatch_size = 16, 4
    config.compute.remat = "block"
    config.mesh.data, config.mesh.fsdp = 1, -1
    config.update_from_flattened_dict(settings)
    return with_kernel(config)


@pytest.fixture(scope="module")
def step():
    return trace_step(configured(), small_model(), "v5e:2x4")


@needs_libtpu
@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache")
def test_the_step_is_compiled_with_the_kernel_and_fits(step):
    # Of the policy, of its gradient by queries and by keys, and of the reference.
    assert str(step.traced.jaxpr).count("pallas_call") >= 4
    made = step.compile()
    assert made.chips == 8 and made.rows == 16 and made.fits
    # A part of 4 rows cannot be spread over 8 chips: each takes one row at a time.
    assert made.rows_at_once == 1
    base = step.arguments[1]
    shards = [leaf.sharding.shard_shape(leaf.shape) for leaf in jax.tree.leaves(base)]
    assert made.arguments >= 2 * sum(map(math.prod, shards))
    assert made.temporaries > 0


@needs_libtpu
def test_a_step_for_which_there_is_no_room_is_no_error():
    rows = {"train.batch_size": 2**16, "train.microbatch_size": 0}
    made = trace_step(configured(**rows), small_model(), "v5e:2x2").compile()
    assert not made.fits and made.total > 16 * 2**30 and made.arguments < 2**30
    assert str(made).endswith("of 14.40 GiB, 90% of a chip's memory")


@needs_libtpu
def test_flops_are_of_all_rows_and_chips(step):
    longer = trace_step(configured(**{"train.batch_size": 32}), small_model(), "v5e:2x2")
    assert longer.flops() == 2 * step.flops()


@needs_libtpu
def test_another_program_has_another_identity_and_the_same_one_the_same(step):
    again, other = (
        trace_step(configured(**{"optimizer.beta1": beta}), small_model(), "v5e:2x4") for beta in (0.9, 0.8)
    )
    assert again.identity == step.identity != other.identity
    elsewhere = trace_step(configured(**{"sharding.embed": ""}), small_model(), "v5e:2x4")
    assert elsewhere.identity != step.identity


@needs_libtpu
def test_lengths_that_the_kernel_cannot_take_are_refused():
    with pytest.raises(ValueError, match="multiples of 128"):
        trace_step(configured(**{"data.max_prompt_length": 100}), small_model(), "v5e:2x4")


@pytest.mark.parametrize("topology", ["v9:2x2", "v5e", "v5e:2", "v5e:4x4x4", "v4:2x2", "v5e:0x4", "v5e:2x4 "])
def test_a_topology_that_is_none_is_refused_before_the_compiler_sees_it(topology):
    with pytest.raises(ValueError, match="name the grid of its chips, as in v5e:4x4"):
        chip_of(topology)


@needs_libtpu
def test_a_grid_that_no_pod_has_is_refused_in_one_line():
    with pytest.raises(ValueError, match="v5e:3x5.*not divisible") as error:
        devices_of("v5e:3x5")
    assert "\n" not in str(error.value)


@needs_libtpu
@pytest.mark.parametrize("topology, chips", [("v4:2x2x1", 4), ("v5p:2x2x1", 4), ("v6e:2x4", 8)])
def test_a_chip_is_one_device(topology, chips):
    before = dict(os.environ)
    assert len(devices_of(topology)) == chips
    assert dict(os.environ) == before
