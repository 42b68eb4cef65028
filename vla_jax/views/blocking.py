"""Blocking image tokens from attention (BDHS)."""

from functools import partial

import jax
from jaxtyping import Array, Bool, PRNGKeyArray


@partial(jax.jit, static_argnames=("num_image_tokens", "threshold"))
def keep_mask(key: PRNGKeyArray, num_image_tokens: int, threshold: float = 0.99) -> Bool[Array, " n"]:
    """Which image tokens stay visible: token i is kept where ρ_i ≥ `threshold`, ρ_i ~ U[0, 1).

    On average the share 1 − `threshold` is kept; sometimes, of few tokens often, none at all. 0 keeps every
    token, 1 none. It belongs on the keys of attention after the image has been expanded to its tokens;
    position ids stay as they are.

    Args:
      key: fixes the mask; draw it from (seed, record, try).
      num_image_tokens: n, image tokens after expansion.
      threshold: ρ_th.

    Raises:
      ValueError: where `threshold` is outside [0, 1].

    Source: the alignment study (BDHS), equation 6; ρ_th = 0.99 is its final setting.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"keep_mask: {threshold=} must lie in [0, 1]")
    return jax.random.uniform(key, (num_image_tokens,)) >= threshold
