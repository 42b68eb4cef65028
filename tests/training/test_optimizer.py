"""Schedules reach their marks; Muon does what it is said to do, where it is said to."""

import jax
import numpy as np
import optax
import pytest

from tests.small_models import draw, tiny_config
from vla_jax.models import Parameter, llava
from vla_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from vla_jax.training.step import Trained

TABLE = llava.table(tiny_config())


@pytest.mark.parametrize("name, last", [("constant", 1.0), ("linear", 0.0), ("cosine", 0.0)])
def test_the_rate_rises_to_its_peak_and_falls_as_named(name, last):
    schedule = make_schedule(OptimizerConfig(learning_rate=1.0, schedule=name, warmup_ratio=0.1), steps=100)
    assert 0 < float(schedule(0)) < 0.1
    assert float(schedule(10)) == pytest.approx(1.0)
    assert float(schedule(100)) == pytest.approx(last, abs=1e-6)


def test_an_unknown_schedule_is_refused_with_the_choice():
    with pytest.raises(ValueError, match="choose one of constant, linear, cosine"):
        OptimizerConfig(schedule="sawtooth")


def test_an_unknown_optimizer_is_refused_with_the_choice():
    with pytest.raises(ValueError, match="choose one of adamw, adafactor, muon"):
        OptimizerConfig(name="sgd")


def first_updates(config, params, gradients):
    optimizer, trained = make_optimizer(config, 10, TABLE), Trained(None, params)
    return optimizer.update(Trained(None, gradients), optimizer.init(trained), trained)[0].params


def test_muon_turns_the_gradient_of_a_matrix_into_a_nearly_orthogonal_update():
    params = draw(TABLE)
    gradients = draw(TABLE, seed=1)
    rate = 0.01
    config = OptimizerConfig("muon", 1e-3, rate, schedule="constant", warmup_ratio=0.0)
    updates = first_updates(config, params, gradients)
    for update, gradient in zip(
        np.asarray(updates["language"]["layers"]["gate_proj"]),
        np.asarray(gradients["language"]["layers"]["gate_proj"]),
        strict=True,
    ):
        # The polar factor U V^T of the gradient, by NumPy's singular values; Muon's five Newton-Schulz steps
        # bring every singular value near 1, no nearer than 0.7 to 1.2 (Jordan et al. 2024).
        u, values, vt = np.linalg.svd(gradient, full_matrices=False)
        coordinates = np.diag(u.T @ update @ vt.T) / (-rate * 0.2 * max(update.shape) ** 0.5)
        large = values > 0.05 * np.linalg.norm(values)
        assert large.sum() > len(values) / 2
        assert np.all((coordinates[large] > 0.6) & (coordinates[large] < 1.3))


def test_muon_leaves_all_but_the_matrices_of_linear_layers_to_adamw():
    params, gradients = draw(TABLE), draw(TABLE, seed=1)
    muon = first_updates(
        OptimizerConfig("muon", 1e-3, 5e-2, schedule="constant", warmup_ratio=0.0), params, gradients
    )
    # Optax gives both halves Nesterov's momentum.
    reference = optax.chain(optax.clip_by_global_norm(1.0), optax.nadamw(1e-3, b2=0.999, weight_decay=0.0))
    adamw = reference.update(gradients, reference.init(params), params)[0]
    flat = zip(
        jax.tree_util.tree_leaves_with_path(muon),
        jax.tree.leaves(adamw),
        jax.tree.leaves(TABLE, is_leaf=lambda node: isinstance(node, Parameter)),
        strict=True,
    )
    for (path, ours), theirs, parameter in flat:
        same = np.allclose(ours, theirs, rtol=1e-5, atol=1e-9)
        assert same != parameter.is_block_linear, path
