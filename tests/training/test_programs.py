"""Compiled steps: one program a shape, and what each takes of memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.training.programs import (
    CompiledStep,
    Memory,
    OutOfMemoryError,
    bytes_of_a_device,
    check_fits,
)

GIB = 2**30


def step(state, base, batch):
    """A step of its kind: the state is donated and given back."""
    return state + (base @ batch["x"]).sum(), {"loss": batch["x"].sum()}


def batch(width):
    return {"x": np.ones((64, width), np.float32)}


def test_each_shape_is_compiled_once_and_computes_what_the_function_does():
    compiled, state, base = CompiledStep(jax.jit(step, donate_argnums=0)), jnp.zeros(()), jnp.ones((64, 64))
    for width in (4, 8, 4, 4, 8):
        expected = float(state) + 64 * 64 * width
        state, metrics = compiled(state, base, batch(width))
        assert float(state) == expected and float(metrics["loss"]) == 64 * width
    assert len(compiled) == 2


def test_memory_counts_arguments_once_and_donated_ones_not_again():
    rows = 1024
    program = jax.jit(lambda state, x: (state + 1, (x @ x).sum()), donate_argnums=0)
    shape = jax.ShapeDtypeStruct((rows, rows), jnp.float32)
    memory = Memory.of(program.lower(shape, shape).compile())
    square = 4 * rows**2
    # State and x; then x @ x, which may be fused away, and nothing for the new state.
    assert memory.arguments == 2 * square
    assert memory.temporaries <= 1.6 * square
    kept = Memory.of(jax.jit(lambda state, x: (state + 1, (x @ x).sum())).lower(shape, shape).compile())
    assert kept.total - memory.total == pytest.approx(square, rel=0.01)


def test_what_does_not_fit_is_refused_with_what_to_do():
    memory = Memory(3 * GIB, 2 * GIB)
    check_fits(memory, 5 * GIB)
    check_fits(memory, None)
    with pytest.raises(OutOfMemoryError, match="5.00 GiB a device.*has 4.90 GiB.*compute.remat=block"):
        check_fits(memory, int(4.9 * GIB))


def test_a_cpu_device_has_its_share_of_the_machine():
    assert 2**28 < bytes_of_a_device() < 2**46
