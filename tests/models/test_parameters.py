"""The parameter table: one declaration gives values, shapes, axes and names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_models import draw, tiny_config
from vla_jax.models import Parameter, llava, parameters


def leaves(tree):
    """Path -> leaf."""
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            tree, is_leaf=lambda node: isinstance(node, Parameter | tuple)
        )
    }


@pytest.fixture(scope="module")
def table():
    return llava.table(tiny_config())


@pytest.fixture(scope="module")
def params(table):
    return draw(table)


@pytest.mark.smoke
def test_shapes_and_axes_follow_the_table(table):
    shapes, axes = leaves(parameters.abstract(table, jnp.bfloat16)), leaves(parameters.logical_axes(table))
    for path, parameter in leaves(table).items():
        assert (shapes[path].shape, shapes[path].dtype) == (parameter.shape, jnp.bfloat16)
        assert axes[path] == parameter.axes
    assert shapes.keys() == axes.keys() == leaves(table).keys()


def test_initial_values_have_the_declared_shapes(table, params):
    assert jax.tree.map(lambda p: (p.shape, p.dtype), params) == jax.tree.map(
        lambda p: (p.shape, p.dtype), parameters.abstract(table)
    )


def test_size_counts_every_scalar(table, params):
    assert parameters.size(table) == sum(p.size for p in jax.tree.leaves(params))


def test_a_value_depends_on_its_path_and_the_key_not_on_its_neighbours(table):
    tied = llava.table(tiny_config(language={"tie_embeddings": True}))
    all_values, fewer = (leaves(parameters.initialise(t, jax.random.key(0))) for t in (table, tied))
    assert set(all_values) - set(fewer) == {"['language']['head']"}
    for path, value in fewer.items():
        np.testing.assert_array_equal(value, all_values[path])


def test_another_key_draws_other_values(table, params):
    other = draw(table, seed=1)
    assert not np.array_equal(other["projector"]["fc1"], params["projector"]["fc1"])


def test_stacked_layers_and_equal_shapes_draw_different_values(params):
    layers = params["language"]["layers"]
    assert not np.array_equal(layers["q_proj"][0], layers["q_proj"][1])
    assert not np.array_equal(layers["gate_proj"], layers["up_proj"])


def test_a_linear_layer_keeps_the_variance_of_its_input():
    layer = parameters.linear((256, None), (300, None), "layer", scale=0.5)
    weight = layer.init(jax.random.key(0), layer.shape, jnp.float32)
    assert weight.shape == (256, 300)
    assert weight.std() == pytest.approx(0.5 * 256**-0.5, rel=0.02)


def test_a_linear_layer_is_the_transpose_of_pytorchs():
    layer = parameters.linear((4, "embed"), (6, "mlp"), "block.fc")
    assert (layer.hugging_face, layer.layout) == ("block.fc.weight", "o i -> i o")


def test_stacking_adds_a_leading_axis_named_layers():
    stacked = parameters.stack({"fc": parameters.linear((4, "embed"), (6, "mlp"), "{layer}.fc")}, 3)["fc"]
    assert (stacked.shape, stacked.axes) == ((3, 4, 6), ("layers", "embed", "mlp"))


def test_hugging_face_names_are_unique_and_only_stacked_ones_name_a_layer(table):
    declared = leaves(table).values()
    names = [parameter.hugging_face for parameter in declared]
    assert len(set(names)) == len(names)
    for parameter in declared:
        assert ("{layer}" in parameter.hugging_face) == (parameter.axes[0] == "layers")


def test_every_dimension_needs_an_axis_name():
    with pytest.raises(ValueError, match="norm.weight: 1 axis names for shape"):
        Parameter((4, 5), ("embed",), parameters.zeros, "norm.weight")


def test_split_and_overlay_take_a_tree_apart_and_put_it_together(params):
    vision, rest = parameters.split(params, "^vision/")
    assert vision.keys() == {"vision"}
    assert rest.keys() == {"projector", "language"}
    assert leaves(parameters.overlay(rest, vision)).keys() == leaves(params).keys()
    halves = parameters.split(params, "layers/.*_proj$")
    together = parameters.overlay(*halves)
    assert all(a is b for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(params), strict=True))


def test_an_empty_pattern_splits_off_nothing(params):
    nothing, everything = parameters.split(params, "")
    assert not nothing
    assert leaves(everything).keys() == leaves(params).keys()


def test_overlay_prefers_the_changes_in_the_bases_dtype_and_leaves_the_base_alone():
    base = {"a": {"b": jnp.float32(1), "c": jnp.bfloat16(2)}, "d": jnp.float32(3)}
    changed = parameters.overlay(base, {"a": {"c": jnp.float32(5)}})
    assert changed == {"a": {"b": 1, "c": 5}, "d": 3} and changed["a"]["c"].dtype == jnp.bfloat16
    assert base["a"]["c"] == 2
