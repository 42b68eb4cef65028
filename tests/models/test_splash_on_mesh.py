"""The TPU's attention kernel over eight devices, interpreted, against plain attention on one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.virtual_devices import on_virtual_devices
from vla_jax.models.attention import causal_attention
from vla_jax.models.target import Target
from vla_jax.parallel import make_mesh

# (data, fsdp, tensor), key heads: split with the queries, and repeated because there are fewer than devices.
CASES = {"2x2x2, 2 key heads": (2, 2, 2, 2), "1x4x2, 1 key head": (1, 4, 2, 1)}


def differences():
    """Of each case, how far values and gradients of the kernel are from the plain ones, at most."""
    return {name: difference(*case) for name, case in CASES.items()}


def difference(data, fsdp, tensor, kv_heads):
    random = np.random.default_rng(0)
    q, weights = (random.normal(size=(4, 128, 4, 64)).astype(np.float32) for _ in range(2))
    k, v = (random.normal(size=(4, 256, kv_heads, 64)).astype(np.float32) for _ in range(2))
    valid = jnp.arange(256) >= jnp.array([0, 30, 128, 200])[:, None]
    # A padded query attends to padding, which no one reads.
    weights = weights * valid[:, 128:, None, None]

    def total(q, k, v, backend, target=None):
        made = causal_attention(q, k, v, valid, backend=backend, target=target) * (weights != 0)
        return jnp.sum(weights * made), made

    slopes = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True), static_argnums=(3, 4))
    plain = slopes(q, k, v, "xla", None)
    with jax.set_mesh(make_mesh(data, fsdp, tensor)):
        spread = slopes(q, k, v, "splash", Target("cpu", rows=("data", "fsdp"), heads="tensor"))
    assert len(spread[1].sharding.device_set) == 8
    pairs = zip(jax.tree.leaves(plain), jax.tree.leaves(spread), strict=True)
    return [float(np.abs(np.asarray(one) - np.asarray(other)).max()) for one, other in pairs]


@pytest.fixture(scope="module")
def made():
    return on_virtual_devices("tests.models.test_splash_on_mesh", "differences")


@pytest.mark.parametrize("case", CASES)
def test_the_kernel_over_eight_devices_gives_the_plain_values_and_gradients(made, case):
    *by_inputs, values = made[case]
    assert max(by_inputs) < 1e-4 and values < 2e-5
