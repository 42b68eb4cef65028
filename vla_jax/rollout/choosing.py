"""Which token comes next, and whether a response ends with it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, Key

# Words of a block: a block is drawn first, then a word of it.
_BLOCK = 256
# Logits divided by less may be beyond what float32 holds.
_LEAST_TEMPERATURE = 1e-30


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled; static in a program.

    Attributes:
      max_new_tokens: t, the longest response.
      end_ids: the tokens that end a response; with none of them, nor of `stop`, all have their full length.
      temperature: 0 takes the likeliest token, else tokens come from softmax(logits / temperature).
      top_k: draw from so many of the likeliest tokens; 0 draws from all.
      top_p: draw from the fewest likeliest tokens that hold at least this probability together, after
        temperature and `top_k` (Holtzman et al. 2020, arXiv:1904.09751).
      stop: sequences of tokens that end a response, itself part of it.

    Raises:
      ValueError: where a value cannot be.
    """

    max_new_tokens: int
    end_ids: tuple[int, ...] = ()
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; a response has at least 1 token")
        if not (self.temperature == 0 or self.temperature >= _LEAST_TEMPERATURE):
            raise ValueError(
                f"temperature is {self.temperature}; it must be 0 (greedy) or at least {_LEAST_TEMPERATURE:g}"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; it must be positive, or 0 for all tokens")
        if not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p is {self.top_p}; it must be above 0 and at most 1, which takes all tokens"
            )
        if not all(self.stop):
            raise ValueError("stop has an empty sequence, which would end every response before it begins")

    @property
    def memory(self) -> int:
        """How many of the last tokens tell whether a response ends."""
        return max((len(sequence) for sequence in self.stop), default=1)


def choose(
    logits: Float[Array, "*b w"], sampling: Sampling, key: Key[Array, "..."] | None
) -> tuple[Int[Array, "*b"], Float[Array, "*b"]]:
    """One token each, and its log-probability at temperature 1 among all tokens, both whatever the filters.

    Args:
      logits: what each token is drawn by.
      sampling: how.
      key: one for all, or one for each [*b].

    Raises:
      ValueError: where there is a temperature and no key, or keys for another number of tokens.
    """
    if sampling.temperature == 0:
        tokens = _likeliest(logits)
    elif key is None:
        raise ValueError(f"temperature is {sampling.temperature}: sampling needs a key")
    elif key.ndim and key.shape != logits.shape[:-1]:
        raise ValueError(
            f"keys of shape {key.shape} for responses of shape {logits.shape[:-1]}; give one for all, or one "
            "each"
        )
    else:
        tokens = _drawn(key, filtered(logits, sampling))
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)
    highest = logits.max(axis=-1, keepdims=True)
    # Without filters these are the weights that tokens are drawn by; XLA takes them once.
    total = jnp.exp(logits - highest).sum(axis=-1)
    return tokens.astype(jnp.int32), (chosen - highest)[..., 0] - jnp.log(total)


def _likeliest(logits: Float[Array, "*b w"]) -> Int[Array, "*b"]:
    """The first place of the maximum: an argmax in two passes, which XLA's CPU takes five times as fast."""
    last = logits.shape[-1] - 1
    highest = logits == logits.max(axis=-1, keepdims=True)
    return jnp.where(highest, jnp.arange(last + 1), last).min(axis=-1)


def _drawn(key: Key[Array, "..."], logits: Float[Array, "*b w"]) -> Int[Array, "*b"]:
    """Tokens by their probabilities: a block of tokens, then one of the block.

    Two uniform numbers a token; Gumbel noise would take one for every word of the vocabulary.
    """
    weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    missing = -logits.shape[-1] % _BLOCK
    padded = jnp.pad(weights, [(0, 0)] * (logits.ndim - 1) + [(0, missing)])
    blocks = rearrange(padded, "... (n w) -> ... n w", w=_BLOCK)
    if key.ndim:
        flat = jax.vmap(lambda each: jax.random.uniform(each, (2,)))(key.reshape(-1))
        uniform = flat.reshape(*key.shape, 2)
    else:
        uniform = jax.random.uniform(key, (*logits.shape[:-1], 2))
    block = _reached(blocks.sum(axis=-1), uniform[..., 0])
    within = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    return block * _BLOCK + _reached(within, uniform[..., 1])


def _reached(weights: Float[Array, "*b n"], share: Float[Array, "*b"]) -> Int[Array, "*b"]:
    """Where the running sum of weights passes a share below 1 of the whole; never at a weight of 0.

    A running sum is added up in parts: from one place to the next it may move though the weight there is 0.
    """
    sums = jnp.where(weights > 0, jnp.cumsum(weights, axis=-1), -1)
    return jnp.argmax(sums > share[..., None] * sums.max(axis=-1, keepdims=True), axis=-1)


def filtered(logits: Float[Array, "*b w"], sampling: Sampling) -> Float[Array, "*b w"]:
    """Logits of what is drawn from: divided by the temperature, -inf at tokens that are left out.

    Tokens as likely as the last one that is kept are kept too.
    """
    scaled = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        falling = jax.lax.top_k(scaled, sampling.top_k)[0]
    elif sampling.top_p < 1:
        falling = -jnp.sort(-scaled, axis=-1)
    else:
        return scaled
    probabilities = jax.nn.softmax(falling, axis=-1)
    likelier = jnp.cumsum(probabilities, axis=-1) - probabilities
    least = jnp.min(jnp.where(likelier < sampling.top_p, falling, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(scaled < least, -jnp.inf, scaled)


def remembered(last: Int[Array, "*b m"], tokens: Int[Array, "*b"]) -> Int[Array, "*b m"]:
    """The last tokens of every response, the newest at the end."""
    return jnp.concatenate([last[..., 1:], tokens[..., None]], axis=-1)


def ended(last: Int[Array, "*b m"], sampling: Sampling) -> Bool[Array, "*b"]:
    """Whether responses end with their last tokens, where places before their beginning hold -1."""
    done = jnp.isin(last[..., -1], np.array(sampling.end_ids, np.int32))
    for sequence in sampling.stop:
        done |= (last[..., -len(sequence) :] == np.array(sequence, np.int32)).all(axis=-1)
    return done
