"""The Llama decoder (Touvron et al. 2023, arXiv:2302.13971) as a pure function, and, by its switches, Vicuna,
Mistral (Jiang et al. 2023, arXiv:2310.06825) and Qwen2 (Yang et al. 2024, arXiv:2407.10671).

RMSNorm, rotary positions, SwiGLU, grouped-query attention, sliding windows. The function maps embeddings to
hidden states, so that what is spliced into the embeddings (image features) is the caller's business, and what
is read off the hidden states (logits at some positions, a reward) too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from vla_jax.models.attention import attention
from vla_jax.models.compute import Compute
from vla_jax.models.lora import Adapter, apply, part
from vla_jax.models.parameters import Parameter, Params, Table, linear, normal, ones, stack, zeros


@dataclass(frozen=True)
class LlamaConfig:
    """Shape of the decoder.

    Attributes:
      vocab_size: w.
      hidden_size: width d.
      intermediate_size: width f of the feed-forward layer.
      num_layers, num_heads: depth and query heads.
      num_kv_heads: key/value heads g; divides `num_heads`.
      rope_theta: base of the rotary frequencies.
      rms_norm_eps: added to the mean square.
      tie_embeddings: the output projection is the transposed embedding.
      head_dim: width k of one head; 0 takes hidden_size / num_heads.
      qkv_bias, out_bias, mlp_bias: whether these linear layers have biases (Qwen2: qkv).
      sliding_window: a query sees this many positions, its own included; 0 sees all.
      full_layers: the first layers that see everything all the same (Qwen2's `max_window_layers`).
      unroll: unroll the scan over layers: faster for small models, slower to compile.
    """

    vocab_size: int = 32064
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_layers: int = 32
    num_heads: int = 32
    num_kv_heads: int = 32
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5
    tie_embeddings: bool = False
    head_dim: int = 0
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int = 0
    full_layers: int = 0
    unroll: bool = False

    def __post_init__(self) -> None:
        if (not self.head_dim and self.hidden_size % self.num_heads) or self.head_size % 2:
            raise ValueError(
                f"language.hidden_size {self.hidden_size} must split into {self.num_heads} heads of even size"
            )
        if self.sliding_window < 0:
            raise ValueError(f"language.sliding_window {self.sliding_window} must be positive, or 0 for none")
        if self.full_layers and not (self.sliding_window and self.full_layers < self.num_layers):
            raise ValueError(
                f"language.full_layers {self.full_layers} would do nothing: it needs a sliding_window and "
                f"more than that many layers ({self.num_layers=})"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"language.num_kv_heads {self.num_kv_heads} must divide {self.num_heads=}")

    @property
    def head_size(self) -> int:
        """Width k of one head."""
        return self.head_dim or self.hidden_size // self.num_heads


class Cache(flax.struct.PyTreeNode):
    """Keys and values of every position written so far, all rows at the same cursor."""

    keys: Float[Array, "l b s g k"]
    values: Float[Array, "l b s g k"]


def empty_cache(config: LlamaConfig, batch: int, length: int, dtype: DTypeLike = jnp.float32) -> Cache:
    """A cache of zeros for `batch` rows of `length` positions."""
    shape = (config.num_layers, batch, length, config.num_kv_heads, config.head_size)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def table(config: LlamaConfig, prefix: str, head: str) -> Table:
    """The parameters; `prefix` and `head` are the trunk's and the output layer's Hugging Face names."""
    d, f, w, k = config.hidden_size, config.intermediate_size, config.vocab_size, config.head_size
    heads, kv_heads = (config.num_heads * k, "heads"), (config.num_kv_heads * k, "kv_heads")
    block = f"{prefix}layers.{{layer}}."
    embed, mlp = (d, "embed"), (f, "mlp")

    def norm(name: str) -> Parameter:
        return Parameter((d,), ("embed",), ones, f"{name}.weight")

    # A fresh block begins as the identity and looks at everything alike (Yang et al. 2022, arXiv:2203.03466,
    # appendix D.2): what it reads is then what it has learnt, not noise it must first unlearn.
    layer = {
        "norm1": norm(f"{block}input_layernorm"),
        "q_proj": linear(embed, heads, f"{block}self_attn.q_proj", scale=0.0),
        "k_proj": linear(embed, kv_heads, f"{block}self_attn.k_proj"),
        "v_proj": linear(embed, kv_heads, f"{block}self_attn.v_proj"),
        "o_proj": linear(heads, embed, f"{block}self_attn.o_proj", scale=0.0),
        "norm2": norm(f"{block}post_attention_layernorm"),
        "gate_proj": linear(embed, mlp, f"{block}mlp.gate_proj"),
        "up_proj": linear(embed, mlp, f"{block}mlp.up_proj"),
        "down_proj": linear(mlp, embed, f"{block}mlp.down_proj", scale=0.0),
    }
    biases = {
        "self_attn.q_proj": (heads, config.qkv_bias),
        "self_attn.k_proj": (kv_heads, config.qkv_bias),
        "self_attn.v_proj": (kv_heads, config.qkv_bias),
        "self_attn.o_proj": (embed, config.out_bias),
        "mlp.gate_proj": (mlp, config.mlp_bias),
        "mlp.up_proj": (mlp, config.mlp_bias),
        "mlp.down_proj": (embed, config.mlp_bias),
    }
    for name, ((width, axis), wanted) in biases.items():
        if wanted:
            ours = name.split(".")[1].replace("proj", "bias")
            layer[ours] = Parameter((width,), (axis,), zeros, f"{block}{name}.bias")
    parameters: dict[str, Any] = {
        "embedding": Parameter((w, d), ("vocab", "embed"), normal(d**-0.5), f"{prefix}embed_tokens.weight"),
        "layers": stack(layer, config.num_layers),
        "norm": norm(f"{prefix}norm"),
    }
    if not config.tie_embeddings:
        parameters["head"] = linear(embed, (w, "vocab"), head)
    return parameters


def output_matrix(params: Params) -> Float[Array, "d w"]:
    """The matrix from hidden states to logits, whether tied or not."""
    return params["head"] if "head" in params else params["embedding"].T


def forward(
    params: Params,
    config: LlamaConfig,
    embeddings: Float[Array, "b t d"],
    positions: Int[Array, "b t"],
    mask: Bool[Array, "#b t s"],
    adapter: Adapter | None = None,
    cache: Cache | None = None,
    cursor: Int[Array, ""] | int = 0,
    key_positions: Int[Array, "b s"] | None = None,
) -> tuple[Float[Array, "b t d"], Cache | None]:
    """Hidden states after the last norm, and the cache with these positions written in.

    Args:
      params: see `table`.
      config: the decoder.
      embeddings: inputs [b t d].
      positions: rotary position of each input.
      mask: True where input t may see key s; s = t without a cache, else the cache's length. Sliding windows
        are applied here, on top of it.
      adapter: LoRA adapter of this decoder.
      cache: keys and values so far; None computes without one.
      cursor: where in the cache the first of these t positions is written.
      key_positions: positions of the keys, for sliding windows; needed where there is a cache.

    Raises:
      ValueError: where a sliding window meets a cache without `key_positions`.
    """
    windowed = _within_window(config, mask, positions, key_positions, cache is not None)

    def mix(
        q: Array, k: Array, v: Array, slides: Bool[Array, ""], past: Cache | None
    ) -> tuple[Array, Cache | None]:
        if past is not None:
            k = jax.lax.dynamic_update_slice_in_dim(past.keys, k.astype(past.keys.dtype), cursor, axis=1)
            v = jax.lax.dynamic_update_slice_in_dim(past.values, v.astype(past.values.dtype), cursor, axis=1)
            past = Cache(k, v)
        visible = mask if windowed is None else jnp.where(slides, windowed, mask)
        return attention(q, k, v, visible), past

    return run_layers(params, config, embeddings, rotation(config, positions), mix, adapter, cache)


# How the positions of a layer see each other: (queries, keys, values, whether this layer has the window, its
# cache) -> what they take in, and the cache.
Mix = Callable[[Array, Array, Array, Array, Any], tuple[Array, Any]]

# Cosines and sines of the rotary angles, one a pair of components.
Rotation = tuple[Float[Array, "b t 1 k"], Float[Array, "b t 1 k"]]


def run_layers(
    params: Params,
    config: LlamaConfig,
    embeddings: Float[Array, "b t d"],
    rotation: Rotation,
    mix: Mix,
    adapter: Adapter | None,
    cache: Any,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
    needed: int | Int[Array, "b f"] = 0,
    last_mix: Mix | None = None,
) -> tuple[Float[Array, "b f d"], Any]:
    """Hidden states of needed positions after the last norm, where positions see each other as `mix` has it.

    Args:
      params, config, adapter, cache: as in `forward`. Layers that stand apart (see `apart`) are written out,
        and what `mix` makes of each layer's cache comes back as a list, as it does where layers are unrolled
        and not all positions are needed; else they are stacks.
      embeddings: inputs.
      rotation: by the position of each.
      mix: the attention of a layer.
      compute: what the backward pass keeps, and where activations lie.
      needed: the first position whose hidden state is asked for, or the positions of each row. Of all others
        the last layer computes keys and values only, where the layers are written out. (A loop does the same
        in every layer, and taking one layer out of it would copy the others' weights.)
      last_mix: the attention of needed positions only, in the last layer; None is `mix`.
    """
    cos, sin = rotation

    def block(
        x: Array,
        layer: tuple[Params, Adapter | None, Cache | None, Array],
        needed: int | Array = 0,
        mix: Mix = mix,
    ) -> tuple[Array, Cache | None]:
        weights, low_rank, past, slides = layer
        x = compute.spread(x)

        def project(inputs: Array, name: str) -> Array:
            adapter = part(low_rank, f"{name}_proj")
            return apply(inputs, weights[f"{name}_proj"], adapter, weights.get(f"{name}_bias"))

        normed = _rms_norm(x, weights["norm1"], config.rms_norm_eps).astype(embeddings.dtype)
        q = rearrange(project(_at(normed, needed), "q"), "b t (h k) -> b t h k", k=config.head_size)
        k, v = (rearrange(project(normed, name), "b t (g k) -> b t g k", k=config.head_size) for name in "kv")
        q = _rotate(q, _at(cos, needed), _at(sin, needed))
        mixed, past = mix(q, _rotate(k, cos, sin), v, slides, past)
        x = _at(x, needed) + project(rearrange(mixed, "b t h k -> b t (h k)"), "o")
        normed = _rms_norm(x, weights["norm2"], config.rms_norm_eps).astype(embeddings.dtype)
        gated = _gated(project(normed, "gate"), project(normed, "up"))
        return x + project(gated, "down"), past

    slides = jnp.arange(config.num_layers) >= config.full_layers
    layers = (params["layers"], part(adapter, "layers"), cache, slides)
    # What the layers add up is kept in float32 in half precision too: rounding the sum at every layer is what
    # would move log-probabilities most.
    x = embeddings.astype(jnp.float32)
    unroll = config.unroll or compute.unroll
    if isinstance(params["layers"], list) or (unroll and (not isinstance(needed, int) or needed)):
        *before, last = zip(*(apart(each, config.num_layers) for each in layers), strict=True)
        made = []
        for layer in before:
            x, past = compute.checkpointed(block, looped=False)(x, layer)
            made.append(past)
        last_block = partial(block, needed=needed, mix=last_mix or mix)
        x, past = compute.checkpointed(last_block, looped=False)(x, last)
        cache = [*made, past]
    else:
        x, cache = jax.lax.scan(
            compute.checkpointed(block, looped=not unroll),
            x,
            layers,
            unroll=config.num_layers if unroll else 1,
            length=config.num_layers,
        )
        x = _at(x, needed)
    x = compute.spread(x)
    return _rms_norm(x, params["norm"], config.rms_norm_eps).astype(embeddings.dtype), cache


def _at(array: Float[Array, "b t *e"], needed: int | Int[Array, "b f"]) -> Float[Array, "b f *e"]:
    """What stands from a position on, or at the positions of each row."""
    if isinstance(needed, int):
        return array[:, needed:]
    return jnp.take_along_axis(array, needed.reshape(*needed.shape, *[1] * (array.ndim - 2)), axis=1)


def apart(layers: Any, count: int) -> list[Any]:
    """What is stacked by layers as one tree a layer; what is so already stays, and None is None a layer.

    In a loop over tokens, a layer's slice of a stack would be a copy at every token.
    """
    if isinstance(layers, list):
        return layers
    return [jax.tree.map(lambda leaf: leaf[i], layers) for i in range(count)]  # noqa: B023


def _within_window(
    config: LlamaConfig,
    mask: Bool[Array, "#b t s"],
    positions: Int[Array, "b t"],
    key_positions: Int[Array, "b s"] | None,
    cached: bool,
) -> Bool[Array, "b t s"] | None:
    """The mask of layers with a sliding window; None where there is none."""
    if not config.sliding_window:
        return None
    if key_positions is None:
        if cached:
            raise ValueError("a decoder with a sliding window needs key_positions beside its cache")
        key_positions = positions
    return mask & (positions[:, :, None] - key_positions[:, None, :] < config.sliding_window)


def rotation(config: LlamaConfig, positions: Int[Array, "b t"], end: int | None = None) -> Rotation:
    """Cosines and sines of the rotary angles.

    Args:
      config: the decoder.
      positions: where each token stands.
      end: what positions are known to be below. They are then looked up: XLA puts what is computed from the
        positions into every rotation of every layer anew, and on a CPU a cosine takes longer than the rest.
    """
    frequencies = config.rope_theta ** (-jnp.arange(0, config.head_size, 2) / config.head_size)
    counted = positions if end is None else jnp.arange(end)
    angles = counted[..., None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if end is not None:
        cos, sin = (known.at[positions].get(mode="clip") for known in (cos, sin))
    return cos[:, :, None], sin[:, :, None]


def _rotate(x: Float[Array, "b t h k"], cos: Array, sin: Array) -> Float[Array, "b t h k"]:
    """Rotary position embedding with the two halves of a head as the pairs' components, as Llama has it."""
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


@jax.checkpoint
def _gated(gate: Float[Array, "b t f"], up: Float[Array, "b t f"]) -> Float[Array, "b t f"]:
    """silu(gate) * up in float32, rounded once.

    The backward pass computes the sigmoid again: these are the widest arrays of a layer, and reading one from
    memory takes longer.
    """
    wide = jax.nn.silu(gate.astype(jnp.float32)) * up.astype(jnp.float32)
    return wide.astype(gate.dtype)


def _rms_norm(x: Float[Array, "b t d"], scale: Float[Array, " d"], eps: float) -> Float[Array, "b t d"]:
    wide = x.astype(jnp.float32)
    normed = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + eps)
    return (normed * scale).astype(x.dtype)
