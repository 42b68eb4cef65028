"""BERT and MPNet sentence encoders as pure functions.

Post-norm transformers with exact GELU (Devlin et al. 2018, arXiv:1810.04805; Song et al. 2020,
arXiv:2004.09297), read as a sentence's embedding by a mean over its tokens (Reimers & Gurevych 2019,
arXiv:1908.10084). Hugging Face names are those of transformers' `BertModel` and `MPNetModel`, whose pooler is
not used and not in the table.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int

from vla_jax.models.encoder import layer_norm, norm
from vla_jax.models.parameters import Parameter, Params, Table, linear, normal, stack, zeros

# Every relative distance from here on shares a bucket: the reference's constant, in no config.
FARTHEST = 128


@dataclass(frozen=True)
class SentenceEncoderConfig:
    """Shape of the encoder; the defaults are all-mpnet-base-v2's.

    Attributes:
      family: "bert" (absolute positions and token types) or "mpnet" (absolute positions and a bias for each
        relative distance).
      vocab_size: w.
      hidden_size: width d.
      intermediate_size: width f of the feed-forward layer.
      num_layers, num_heads: depth and heads.
      max_positions: rows of the position table; see `max_length`.
      type_vocab_size: token types (bert); every token here is of type 0.
      relative_buckets: buckets of relative distance (mpnet), half for either direction.
      layer_norm_eps: added to the variance.
      normalise: scale a sentence's embedding to length 1.
    """

    family: Literal["bert", "mpnet"] = "mpnet"
    vocab_size: int = 30527
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_layers: int = 12
    num_heads: int = 12
    max_positions: int = 514
    type_vocab_size: int = 2
    relative_buckets: int = 32
    layer_norm_eps: float = 1e-5
    normalise: bool = True

    def __post_init__(self) -> None:
        if self.family not in ("bert", "mpnet"):
            raise ValueError(f"sentence_encoder.family is {self.family!r}; it must be 'bert' or 'mpnet'")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"sentence_encoder.hidden_size {self.hidden_size} is no multiple of {self.num_heads=}"
            )
        if self.relative_buckets < 4 or self.relative_buckets % 2:
            raise ValueError(
                f"sentence_encoder.relative_buckets is {self.relative_buckets}; it must be even, at least 4"
            )

    @property
    def first_position(self) -> int:
        """Position of a sentence's first token: MPNet keeps 0 and 1 for itself, 1 for padding."""
        return 2 if self.family == "mpnet" else 0

    @property
    def max_length(self) -> int:
        """The longest row of tokens, padding included."""
        return self.max_positions - self.first_position


def table(config: SentenceEncoderConfig) -> Table:
    """The parameters, under the names of transformers' `BertModel` or `MPNetModel`."""
    d, f = config.hidden_size, config.intermediate_size
    block = "encoder.layer.{layer}."
    if config.family == "bert":
        q, k, v, out, norm1 = "self.query", "self.key", "self.value", "output.dense", "output.LayerNorm"
    else:
        q, k, v, out, norm1 = "attn.q", "attn.k", "attn.v", "attn.o", "LayerNorm"

    def embedding(rows: int, name: str, axis: str | None = None) -> Parameter:
        return Parameter((rows, d), (axis, "embed"), normal(0.02), f"embeddings.{name}_embeddings.weight")

    def dense(ours: str, name: str, inputs: tuple[int, str], outputs: tuple[int, str]) -> Table:
        bias = Parameter(outputs[:1], outputs[1:], zeros, f"{block}{name}.bias")
        return {ours: linear(inputs, outputs, f"{block}{name}"), _bias(ours): bias}

    embed, heads, mlp = (d, "embed"), (d, "heads"), (f, "mlp")
    layer: Table = {
        **dense("q_proj", f"attention.{q}", embed, heads),
        **dense("k_proj", f"attention.{k}", embed, heads),
        **dense("v_proj", f"attention.{v}", embed, heads),
        **dense("out_proj", f"attention.{out}", heads, embed),
        "norm1": norm(d, f"{block}attention.{norm1}"),
        **dense("fc1", "intermediate.dense", embed, mlp),
        **dense("fc2", "output.dense", mlp, embed),
        "norm2": norm(d, f"{block}output.LayerNorm"),
    }
    parameters: dict[str, Any] = {
        "embedding": embedding(config.vocab_size, "word", "vocab"),
        "position": embedding(config.max_positions, "position"),
        "embedding_norm": norm(d, "embeddings.LayerNorm"),
        "layers": stack(layer, config.num_layers),
    }
    if config.family == "bert":
        parameters["token_type"] = embedding(config.type_vocab_size, "token_type")
    else:
        parameters["relative_bias"] = Parameter(
            (config.relative_buckets, config.num_heads),
            (None, None),
            normal(0.02),
            "encoder.relative_attention_bias.weight",
        )
    return parameters


def forward(
    params: Params, config: SentenceEncoderConfig, tokens: Int[Array, "b t"], valid: Bool[Array, "b t"]
) -> Float[Array, "b t d"]:
    """Hidden states after the last layer, in the parameters' dtype.

    Padding may stand on either side (transformers' BERT knows it on the right only) and may hold any token:
    states of valid tokens do not depend on it, its own states mean nothing.

    Args:
      params: see `table`.
      config: the encoder.
      tokens: token ids [b t], special tokens included.
      valid: False at padding [b t].

    Raises:
      ValueError: where t exceeds `config.max_length`.
    """
    length = tokens.shape[1]
    if length > config.max_length:
        raise ValueError(
            f"tokens are {length} long, but the sentence encoder has positions for {config.max_length}; "
            "truncate when tokenising"
        )
    positions = config.first_position + jnp.maximum(jnp.cumsum(valid, axis=1) - 1, 0)
    x = params["embedding"][tokens] + params["position"][positions]
    bias = None
    if config.family == "bert":
        x = x + params["token_type"][0]
    else:
        buckets = relative_buckets(length, config.relative_buckets)
        bias = rearrange(params["relative_bias"][buckets], "t s h -> 1 h t s")
    x = layer_norm(x, params["embedding_norm"], config.layer_norm_eps)
    mask = valid[:, None, None]

    def block(x: Array, layer: Params) -> tuple[Array, None]:
        def project(inputs: Array, name: str) -> Array:
            return inputs @ layer[name] + layer[_bias(name)]

        q, k, v = (
            rearrange(project(x, f"{name}_proj"), "b t (h k) -> b t h k", h=config.num_heads)
            for name in "qkv"
        )
        # Not `attention`: that takes no bias. Softmax in float32 here too.
        mixed = jax.nn.dot_product_attention(q, k, v, bias=bias, mask=mask)
        mixed = project(rearrange(mixed, "b t h k -> b t (h k)"), "out_proj")
        x = layer_norm(x + mixed, layer["norm1"], config.layer_norm_eps)
        hidden = jax.nn.gelu(project(x, "fc1"), approximate=False)
        return layer_norm(x + project(hidden, "fc2"), layer["norm2"], config.layer_norm_eps), None

    return jax.lax.scan(block, x, params["layers"])[0]


def sentence_embeddings(
    params: Params, config: SentenceEncoderConfig, tokens: Int[Array, "b t"], valid: Bool[Array, "b t"]
) -> Float[Array, "b d"]:
    """One embedding a sentence: the mean over its valid tokens, of length 1 where `config.normalise`.

    sentence-transformers' `Pooling(mean)` and `Normalize`. Computed in float32, returned in the parameters'
    dtype; a row with no valid token gives zeros. Arguments and errors are those of `forward`.
    """
    states = forward(params, config, tokens, valid)
    summed = jnp.einsum("btd,bt->bd", states, valid, preferred_element_type=jnp.float32)
    embeddings = summed / jnp.maximum(valid.sum(axis=1, keepdims=True), 1)
    if config.normalise:
        squared = jnp.square(embeddings).sum(axis=1, keepdims=True)
        embeddings = embeddings * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))
    return embeddings.astype(states.dtype)


def relative_buckets(length: int, num_buckets: int) -> Int[np.ndarray, "t s"]:
    """Bucket of the distance from each query t to each key s, for rows of `length` tokens.

    Half the buckets are for keys that come later. Of either half, half hold one distance each and the others
    grow logarithmically until `FARTHEST` (Raffel et al. 2019, arXiv:1910.10683, section 2.1). Computed by
    numpy: a compiler that rounds the logarithm another way would put distances 16, 32 and 64 a bucket lower.
    """
    distance = np.arange(length) - np.arange(length)[:, None]
    half = num_buckets // 2
    exact = half // 2
    near = np.abs(distance)
    share = np.log(np.maximum(near, 1) / exact) / math.log(FARTHEST / exact)
    far = np.minimum(exact + (share * (half - exact)).astype(np.int64), half - 1)
    return np.where(near < exact, near, far) + half * (distance > 0)


def _bias(name: str) -> str:
    """The bias of `q_proj` is `q_bias`, that of `fc1` is `fc1_bias`."""
    return f"{name.removesuffix('_proj')}_bias"
