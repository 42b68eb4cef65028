"""The pre-norm transformer encoder (Vaswani et al. 2017, arXiv:1706.03762; norms first) that the vision
towers and CLIP's text tower share. They differ in a few switches and in what Hugging Face calls things.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, DTypeLike, Float

from vla_jax.models.activations import activation
from vla_jax.models.attention import attention
from vla_jax.models.lora import Adapter, apply, part
from vla_jax.models.parameters import Parameter, Params, Table, linear, ones, stack, zeros
from vla_jax.models.target import Target


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of the encoder.

    Attributes:
      hidden_size: width d.
      intermediate_size: width f of the feed-forward layer.
      num_layers, num_heads: depth and heads.
      layer_norm_eps: added to the variance.
      activation: of the feed-forward layer, by its Hugging Face name.
      unroll: unroll the scan over layers: faster for small models, slower to compile.
    """

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_layers: int = 24
    num_heads: int = 16
    layer_norm_eps: float = 1e-5
    activation: str = "quick_gelu"
    unroll: bool = False

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_heads=}")
        activation(self.activation)


class Names(NamedTuple):
    """What Hugging Face calls the parts of a layer, without the layer's own prefix."""

    norm: str = "layer_norm"
    q_proj: str = "self_attn.q_proj"
    k_proj: str = "self_attn.k_proj"
    v_proj: str = "self_attn.v_proj"
    out_proj: str = "self_attn.out_proj"


def norm(size: int, name: str) -> Table:
    """Scale and bias of a layer norm."""
    return {
        "scale": Parameter((size,), ("embed",), ones, f"{name}.weight"),
        "bias": Parameter((size,), ("embed",), zeros, f"{name}.bias"),
    }


def bias(size: int, axis: str | None, name: str) -> Parameter:
    """The bias of a linear layer."""
    return Parameter((size,), (axis,), zeros, f"{name}.bias")


def table(
    config: EncoderConfig,
    block: str,
    names: Names = Names(),  # noqa: B008 (immutable)
    *,
    qkv_bias: bool = True,
    layer_scale: bool = False,
    gated: bool = False,
) -> Table:
    """The parameters of all layers, stacked.

    Args:
      config: the encoder.
      block: Hugging Face prefix of a layer, with `{layer}` and a dot at its end.
      names: the names behind that prefix.
      qkv_bias: whether queries, keys and values have biases.
      layer_scale: whether each residual branch is scaled by a learnt vector (DINOv2).
      gated: a SwiGLU feed-forward layer (DINOv2 giant) instead of two linear ones.
    """
    d, f = config.hidden_size, config.intermediate_size
    residual = (2 * config.num_layers) ** -0.5
    layer: dict[str, Any] = {"norm1": norm(d, f"{block}{names.norm}1")}
    for name in "qkv":
        hugging_face = f"{block}{getattr(names, f'{name}_proj')}"
        layer[f"{name}_proj"] = linear((d, "embed"), (d, "heads"), hugging_face)
        if qkv_bias:
            layer[f"{name}_bias"] = bias(d, "heads", hugging_face)
    layer |= {
        "out_proj": linear((d, "heads"), (d, "embed"), f"{block}{names.out_proj}", scale=residual),
        "out_bias": bias(d, "embed", f"{block}{names.out_proj}"),
        "norm2": norm(d, f"{block}{names.norm}2"),
    }
    # A gated layer's first matrix holds gate and value side by side, as checkpoints have it.
    first, second = ("mlp.weights_in", "mlp.weights_out") if gated else ("mlp.fc1", "mlp.fc2")
    width = 2 * f if gated else f
    layer |= {
        "fc1": linear((d, "embed"), (width, "mlp"), f"{block}{first}"),
        "fc1_bias": bias(width, "mlp", f"{block}{first}"),
        "fc2": linear((f, "mlp"), (d, "embed"), f"{block}{second}", scale=residual),
        "fc2_bias": bias(d, "embed", f"{block}{second}"),
    }
    if layer_scale:
        for i in (1, 2):
            layer[f"scale{i}"] = Parameter((d,), ("embed",), ones, f"{block}layer_scale{i}.lambda1")
    return stack(layer, config.num_layers)


def forward(
    layers: Params,
    config: EncoderConfig,
    x: Float[Array, "b n d"],
    mask: Bool[Array, "#b #n n"] | None = None,
    adapter: Adapter | None = None,
    target: Target | None = None,
) -> Float[Array, "b n d"]:
    """Runs `x` through stacked layers, as many as are given.

    Args:
      layers: see `table`; a slice of it runs a part of the encoder.
      config: the encoder.
      x: inputs.
      mask: True where an input may see another; None lets all see all.
      adapter: LoRA adapter of these layers.
      target: where activations lie; None says nothing of it.
    """
    depth = len(layers["norm1"]["scale"])

    def block(total: Array, layer: tuple[Params, Adapter | None]) -> tuple[Array, None]:
        total = total if target is None else target.spread(total)
        return _block(total, x.dtype, config, *layer, mask), None

    # What the layers add up is kept in float32 in half precision too.
    total, _ = jax.lax.scan(
        block, x.astype(jnp.float32), (layers, adapter), unroll=depth if config.unroll else 1
    )
    return total.astype(x.dtype)


def _block(
    x: Float[Array, "b n d"],
    dtype: DTypeLike,
    config: EncoderConfig,
    params: Params,
    adapter: Adapter | None,
    mask: Bool[Array, "#b #n n"] | None,
) -> Array:
    """One layer on float32 sums, its products computed in `dtype`."""

    def project(inputs: Array, name: str, bias_name: str) -> Array:
        return apply(inputs.astype(dtype), params[name], part(adapter, name), params.get(bias_name))

    def scaled(branch: Array, name: str) -> Array:
        return branch * params[name] if name in params else branch

    normed = layer_norm(x, params["norm1"], config.layer_norm_eps)
    q, k, v = (
        rearrange(project(normed, f"{name}_proj", f"{name}_bias"), "b n (h k) -> b n h k", h=config.num_heads)
        for name in "qkv"
    )
    mixed = project(rearrange(attention(q, k, v, mask), "b n h k -> b n (h k)"), "out_proj", "out_bias")
    x = x + scaled(mixed, "scale1")
    hidden = project(layer_norm(x, params["norm2"], config.layer_norm_eps), "fc1", "fc1_bias")
    # In float32, and rounded once: XLA fuses it, so that half precision costs nothing here.
    hidden = hidden.astype(jnp.float32)
    if hidden.shape[-1] == config.intermediate_size:
        hidden = activation(config.activation)(hidden)
    else:
        gate, value = jnp.split(hidden, 2, axis=-1)
        hidden = jax.nn.silu(gate) * value
    return x + scaled(project(hidden, "fc2", "fc2_bias"), "scale2")


def layer_norm(x: Float[Array, "*b d"], params: Params, eps: float) -> Float[Array, "*b d"]:
    """Layer norm over the last axis, in float32."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
    return (normed * params["scale"] + params["bias"]).astype(x.dtype)
