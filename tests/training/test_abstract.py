"""Shapes that stand for a run's arrays are those of its arrays, and lie where they lie."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from tests.small_models import tiny_model
from tests.virtual_devices import on_virtual_devices
from vla_jax.interop.published import published
from vla_jax.models import llava, parameters
from vla_jax.parallel import on_mesh
from vla_jax.recipes import named
from vla_jax.training.abstract import abstract_base, abstract_batch, abstract_model, abstract_state
from vla_jax.training.assembly import assemble
from vla_jax.training.configuration import default_config

CASES = {
    "adapter and projector": {"recipe": "dpo", "lora.rank": 2, "lora.modules_to_save": "^projector/"},
    "reward head": {"recipe": "reward_model", "lora.rank": 2},
    "all but the tower": {"recipe": "adavip", "train.frozen": "^vision/", "optimizer.name": "adafactor"},
}


def described(tree):
    """Shape, dtype and place of every leaf, as JSON has them."""
    return [
        [
            jax.tree_util.keystr(path),
            list(leaf.shape),
            str(leaf.dtype),
            str(getattr(leaf.sharding, "spec", "")),
        ]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def both():
    """Of each case what a run has, and what stands for it, on eight devices."""
    return {name: compared(settings) for name, settings in CASES.items()}


def compared(settings):
    config = default_config()
    config.data.source = "world_preference"
    config.train.batch_size = 8
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 2, 2, 2
    config.update_from_flattened_dict(settings)
    model = tiny_model(vision={"image_size": 36})
    run = assemble(config, model)
    method, batch = run.method(), next(run.open_batches(0))
    with jax.set_mesh(run.mesh):
        state = on_mesh(run.mesh, method.init(run._initial(run.model.params)))
    # The run's model has the reward head where the recipe needs one.
    hollow = replace(run.model, tokenizer=None)
    hollow = replace(hollow, params=parameters.abstract(llava.table(run.model.config)))
    ours = abstract_batch(config, run.mesh, hollow, run.recipe)
    return {
        "state": [described(state), described(abstract_state(config, run.mesh, hollow, run.recipe, method))],
        "base": [described(run.model.params), described(abstract_base(config, run.mesh, hollow))],
        "batch": [
            [[list(leaf.shape), str(leaf.dtype)] for leaf in jax.tree.leaves(tree)] for tree in (batch, ours)
        ],
    }


@pytest.fixture(scope="module")
def made():
    return on_virtual_devices("tests.training.test_abstract", "both")


@pytest.mark.parametrize("part", ["state", "base", "batch"])
@pytest.mark.parametrize("case", CASES)
def test_what_stands_for_arrays_is_as_they_are(made, case, part):
    real, abstract = made[case][part]
    assert real == abstract


@pytest.mark.parametrize(
    "name, count",
    [
        ("llava-1.5-7b", 7_063_427_072),
        ("llava-1.6-7b", 7_063_431_168),
        ("llava-1.6-mistral-7b", 7_566_747_648),
        ("llava-1.5-13b", pytest.approx(13.35e9, rel=1e-3)),
    ],
)
def test_a_published_shape_has_as_many_parameters_as_the_model(name, count):
    assert parameters.size(llava.table(published(name).config)) == count


def test_a_next_model_reads_up_to_2928_tokens_of_five_tiles():
    config = default_config()
    config.recipe, config.base.model = "dpo", "models/llava-1.6-7b"
    config.lora.rank, config.train.batch_size = 8, 2
    config.data.max_prompt_length = 3200
    model = abstract_model(config)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("bfloat16")}
    mesh = jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"), devices=jax.devices()[:1])
    batch = abstract_batch(config, mesh, model, named("dpo"))
    assert batch.images.shape == (2, 5, 336, 336, 3) and batch.layout.shape == (2, 2928)


def test_a_model_of_unknown_shape_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no shape is known of base.model='models/mine'.*llava-1.5-7b, "):
        published("models/mine")
