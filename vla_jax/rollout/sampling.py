"""The short way from prompts to responses."""

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from vla_jax.models.compute import Compute
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter
from vla_jax.models.parameters import Params
from vla_jax.rollout.choosing import Sampling
from vla_jax.rollout.decoding import Sampled, decode
from vla_jax.rollout.prefilling import prefill


def sample(
    params: Params,
    adapter: Adapter | None,
    config: LlavaConfig,
    features: Float[Array, "b n d"] | None,
    tokens: Int[Array | np.ndarray, "b s"],
    mask: Bool[Array | np.ndarray, "b s"],
    sampling: Sampling,
    key: Key[Array, ""] | Key[Array, "b k"] | None = None,
    *,
    count: int = 1,
    keep: Bool[Array, "b s"] | None = None,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> Sampled:
    """`count` responses to every prompt, which is read once: [b count t].

    The arguments are those of `prefill` and `decode`.

    Raises:
      ValueError: where there is a temperature and no key, or not a key for each response.
    """
    prefilled = prefill(params, adapter, config, features, tokens, mask, keep, compute=compute)
    return decode(params, adapter, config, prefilled, sampling, key, count=count, compute=compute)
