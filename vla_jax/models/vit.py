"""The CLIP vision transformer (Radford et al. 2021, arXiv:2103.00020) as a pure function."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from vla_jax.models.attention import attention
from vla_jax.models.lora import Adapter, apply, part
from vla_jax.models.parameters import Parameter, Params, Table, linear, normal, ones, stack, zeros


@dataclass(frozen=True)
class ViTConfig:
    """Shape of the tower.

    Attributes:
      image_size, patch_size: sides in pixels; the patch divides the image.
      hidden_size: width d.
      intermediate_size: width f of the feed-forward layer.
      num_layers, num_heads: depth and heads.
      layer_norm_eps: added to the variance.
      unroll: unroll the scan over layers: faster for small models, slower to compile.
    """

    image_size: int = 336
    patch_size: int = 14
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_layers: int = 24
    num_heads: int = 16
    layer_norm_eps: float = 1e-5
    unroll: bool = False

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(f"vision.image_size {self.image_size} is no multiple of {self.patch_size=}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"vision.hidden_size {self.hidden_size} is no multiple of {self.num_heads=}")

    @property
    def num_patches(self) -> int:
        """Patches of an image, the class token not counted."""
        return (self.image_size // self.patch_size) ** 2


def table(config: ViTConfig, prefix: str) -> Table:
    """The parameters; `prefix` is the tower's name in the Hugging Face checkpoint, with its dot."""
    d, f, p = config.hidden_size, config.intermediate_size, config.patch_size
    block = f"{prefix}encoder.layers.{{layer}}."
    residual = (2 * config.num_layers) ** -0.5

    def norm(name: str) -> Table:
        return {
            "scale": Parameter((d,), ("embed",), ones, f"{name}.weight"),
            "bias": Parameter((d,), ("embed",), zeros, f"{name}.bias"),
        }

    def bias(size: int, axis: str, name: str) -> Parameter:
        return Parameter((size,), (axis,), zeros, f"{name}.bias")

    layer: Table = {
        "norm1": norm(f"{block}layer_norm1"),
        **{
            f"{name}_proj": linear((d, "embed"), (d, "heads"), f"{block}self_attn.{name}_proj")
            for name in "qkv"
        },
        **{f"{name}_bias": bias(d, "heads", f"{block}self_attn.{name}_proj") for name in "qkv"},
        "out_proj": linear((d, "heads"), (d, "embed"), f"{block}self_attn.out_proj", scale=residual),
        "out_bias": bias(d, "embed", f"{block}self_attn.out_proj"),
        "norm2": norm(f"{block}layer_norm2"),
        "fc1": linear((d, "embed"), (f, "mlp"), f"{block}mlp.fc1"),
        "fc1_bias": bias(f, "mlp", f"{block}mlp.fc1"),
        "fc2": linear((f, "mlp"), (d, "embed"), f"{block}mlp.fc2", scale=residual),
        "fc2_bias": bias(d, "embed", f"{block}mlp.fc2"),
    }
    return {
        "patch": Parameter(
            (p, p, 3, d),
            (None, None, None, "embed"),
            normal((p * p * 3) ** -0.5),
            f"{prefix}embeddings.patch_embedding.weight",
            "d c y x -> y x c d",
        ),
        "class": Parameter((d,), ("embed",), normal(0.02), f"{prefix}embeddings.class_embedding"),
        "position": Parameter(
            (config.num_patches + 1, d),
            (None, "embed"),
            # As loud as the patches: a tower trained from scratch must tell places apart from the start.
            normal(0.3),
            f"{prefix}embeddings.position_embedding.weight",
        ),
        "pre_norm": norm(f"{prefix}pre_layrnorm"),
        "layers": stack(layer, config.num_layers),
        "post_norm": norm(f"{prefix}post_layernorm"),
    }


def forward(
    params: Params,
    config: ViTConfig,
    pixels: Float[Array, "b y x 3"],
    feature_layer: int = -1,
    adapter: Adapter | None = None,
) -> Float[Array, "b n d"]:
    """Hidden states of the class token and the patches after one layer.

    Args:
      params: see `table`.
      config: the tower.
      pixels: normalised RGB [b y x 3].
      feature_layer: which entry of transformers' `hidden_states` is wanted: 0 is the embeddings, -1 the last
        layer's output (before the post norm). Layers behind it are not computed.
      adapter: LoRA adapter of this tower.

    Returns:
      [b n+1 d], the class token first.
    """
    patch = config.patch_size
    patches = rearrange(pixels, "b (y p) (x q) c -> b (y x) (p q c)", p=patch, q=patch)
    x = patches @ rearrange(params["patch"], "y x c d -> (y x c) d")
    class_token = jnp.broadcast_to(params["class"], (x.shape[0], 1, x.shape[-1]))
    x = jnp.concatenate([class_token.astype(x.dtype), x], axis=1) + params["position"]
    x = _layer_norm(x, params["pre_norm"], config.layer_norm_eps)

    depth = range(config.num_layers + 1)[feature_layer]
    layers = jax.tree.map(lambda p: p[:depth], (params["layers"], part(adapter, "layers")))
    x, _ = jax.lax.scan(
        lambda x, layer: (_block(x, config, *layer), None), x, layers, unroll=depth if config.unroll else 1
    )
    return x


def _block(x: Float[Array, "b n d"], config: ViTConfig, params: Params, adapter: Adapter | None) -> Array:
    normed = _layer_norm(x, params["norm1"], config.layer_norm_eps)
    q, k, v = (
        rearrange(
            apply(normed, params[f"{name}_proj"], part(adapter, f"{name}_proj")) + params[f"{name}_bias"],
            "b n (h k) -> b n h k",
            h=config.num_heads,
        )
        for name in "qkv"
    )
    mixed = rearrange(attention(q, k, v), "b n h k -> b n (h k)")
    x = x + apply(mixed, params["out_proj"], part(adapter, "out_proj")) + params["out_bias"]
    normed = _layer_norm(x, params["norm2"], config.layer_norm_eps)
    hidden = _quick_gelu(apply(normed, params["fc1"], part(adapter, "fc1")) + params["fc1_bias"])
    return x + apply(hidden, params["fc2"], part(adapter, "fc2")) + params["fc2_bias"]


def _quick_gelu(x: Array) -> Array:
    return x * jax.nn.sigmoid(1.702 * x)


def _layer_norm(x: Float[Array, "b n d"], params: Any, eps: float) -> Float[Array, "b n d"]:
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
    return (normed * params["scale"] + params["bias"]).astype(x.dtype)
