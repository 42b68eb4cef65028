"""A reward, or a value, read off a decoder's hidden states by one linear layer.

The head of a reward model (Ouyang et al. 2022, arXiv:2203.02155, section 3.5) as transformers'
`LlamaForSequenceClassification` with `num_labels=1` has it: no bias, read at the last valid token.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vla_jax.models.parameters import Parameter, Params, Table, normal, zeros


def table(hidden_size: int) -> Table:
    """The reward head's one parameter, a vector [d]; transformers keeps it as a matrix [1 d]."""
    # As Stiennon et al. 2020 (arXiv:2009.01325) draw it.
    init = normal((hidden_size + 1) ** -0.5)
    return {"score": Parameter((hidden_size,), ("embed",), init, "score.weight", "1 d -> d")}


def value_table(hidden_size: int) -> Table:
    """The value head's parameters, a vector [d] and a bias; a fresh head expects 0."""
    return {
        "score": Parameter((hidden_size,), ("embed",), zeros, "value.weight", "1 d -> d"),
        "bias": Parameter((1,), (None,), zeros, "value.bias"),
    }


def values(params: Params, states: Float[Array, "*b d"]) -> Float[Array, "*b"]:
    """What the value head expects in each state, float32."""
    scored = jnp.einsum("...d,d->...", states, params["score"], preferred_element_type=jnp.float32)
    return scored + params["bias"].astype(jnp.float32)


def rewards(params: Params, states: Float[Array, "b t d"], valid: Bool[Array, "b t"]) -> Float[Array, " b"]:
    """One reward a row, float32.

    Args:
      params: see `table`.
      states: the decoder's hidden states after its last norm [b t d].
      valid: False at padding, which may stand on either side [b t]. A row with no valid token is read at its
        first position.
    """
    last = jnp.where(valid, jnp.arange(valid.shape[1]), 0).max(axis=1)
    state = jnp.take_along_axis(states, last[:, None, None], axis=1)[:, 0]
    return jnp.einsum("bd,d->b", state, params["score"], preferred_element_type=jnp.float32)
