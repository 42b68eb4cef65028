"""Vision transformers as one pure function: CLIP (Radford et al. 2021, arXiv:2103.00020), SigLIP (Zhai et al.
2023, arXiv:2303.15343) and DINOv2 (Oquab et al. 2023, arXiv:2304.07193).

They cut the image into patches and run the same encoder; what tells them apart stands in `_FAMILIES`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from vla_jax.models import encoder
from vla_jax.models.activations import activation
from vla_jax.models.attention import attention
from vla_jax.models.encoder import EncoderConfig, Names, layer_norm
from vla_jax.models.interpolation import bicubic
from vla_jax.models.lora import Adapter, part
from vla_jax.models.parameters import Parameter, Params, Table, linear, normal, zeros
from vla_jax.models.target import Target


class _Family(NamedTuple):
    """What a family has, and what Hugging Face calls it."""

    class_token: str  # "" where there is none
    patch: str
    patch_bias: bool
    position: str
    pre_norm: str
    post_norm: str
    block: str
    names: Names
    layer_scale: bool = False
    attention_pool: bool = False


_FAMILIES = {
    "clip": _Family(
        class_token="embeddings.class_embedding",
        patch="embeddings.patch_embedding",
        patch_bias=False,
        position="embeddings.position_embedding.weight",
        # Spelt so in every checkpoint.
        pre_norm="pre_layrnorm",
        post_norm="post_layernorm",
        block="encoder.layers.{layer}.",
        names=Names(),
    ),
    "siglip": _Family(
        class_token="",
        patch="embeddings.patch_embedding",
        patch_bias=True,
        position="embeddings.position_embedding.weight",
        pre_norm="",
        post_norm="post_layernorm",
        block="encoder.layers.{layer}.",
        names=Names(),
        attention_pool=True,
    ),
    "dinov2": _Family(
        class_token="embeddings.cls_token",
        patch="embeddings.patch_embeddings.projection",
        patch_bias=True,
        position="embeddings.position_embeddings",
        pre_norm="",
        post_norm="layernorm",
        block="encoder.layer.{layer}.",
        names=Names(
            norm="norm",
            q_proj="attention.attention.query",
            k_proj="attention.attention.key",
            v_proj="attention.attention.value",
            out_proj="attention.output.dense",
        ),
        layer_scale=True,
    ),
}
FAMILIES = tuple(_FAMILIES)


@dataclass(frozen=True, kw_only=True)
class ViTConfig(EncoderConfig):
    """Shape of the tower (and see `EncoderConfig`).

    Attributes:
      image_size, patch_size: sides in pixels; what the last whole patch leaves of a side is not looked at.
      family: "clip", "siglip" or "dinov2".
      gated: a SwiGLU feed-forward layer (DINOv2 giant).
      qkv_bias: whether queries, keys and values have biases.
      pool_head: SigLIP's attention pooling is part of the checkpoint.
      mask_token: DINOv2's mask token is part of the checkpoint (nothing here reads it).
      pixel_mean, pixel_std: of RGB in [0, 1], what the tower's pixels are normalised with; OpenAI CLIP's.
    """

    image_size: int = 336
    patch_size: int = 14
    family: str = "clip"
    gated: bool = False
    qkv_bias: bool = True
    pool_head: bool = True
    mask_token: bool = True
    pixel_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    pixel_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        super().__post_init__()
        # JSON and config files give lists; a config must be hashable.
        object.__setattr__(self, "pixel_mean", tuple(self.pixel_mean))
        object.__setattr__(self, "pixel_std", tuple(self.pixel_std))
        if self.family not in _FAMILIES:
            raise ValueError(f"vision.family {self.family!r} is not one of {', '.join(FAMILIES)}")
        if len(self.pixel_mean) != 3 or len(self.pixel_std) != 3 or min(self.pixel_std) <= 0:
            raise ValueError(
                f"vision.pixel_mean {self.pixel_mean} and vision.pixel_std {self.pixel_std} must be three "
                "numbers each, the latter positive"
            )
        # What a family does not have would be accepted and ignored.
        if self.family != "dinov2" and (self.gated or not self.qkv_bias or not self.mask_token):
            raise ValueError(
                f"vision.gated, qkv_bias and mask_token are DINOv2's to set; the family is {self.family!r}"
            )
        if self.family != "siglip" and not self.pool_head:
            raise ValueError(f"vision.pool_head is SigLIP's to set; the family is {self.family!r}")
        if self.image_size < self.patch_size:
            raise ValueError(f"vision.image_size {self.image_size} is smaller than {self.patch_size=}")

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of an image, the class token not counted."""
        return self.grid**2

    @property
    def has_class_token(self) -> bool:
        """Whether a class token stands before the patches."""
        return bool(_FAMILIES[self.family].class_token)

    @property
    def num_tokens(self) -> int:
        """Tokens of an image, the class token counted."""
        return self.num_patches + self.has_class_token


def table(config: ViTConfig, prefix: str) -> Table:
    """The parameters; `prefix` is the tower's name in the Hugging Face checkpoint, with its dot."""
    family, d, p = _FAMILIES[config.family], config.hidden_size, config.patch_size
    # What DINOv2 keeps as [1 n d] is [n d] here.
    squeeze = config.family == "dinov2"
    parameters: dict[str, Any] = {
        "patch": Parameter(
            (p, p, 3, d),
            (None, None, None, "embed"),
            normal((p * p * 3) ** -0.5),
            f"{prefix}{family.patch}.weight",
            "d c y x -> y x c d",
        ),
        "position": Parameter(
            (config.num_tokens, d),
            (None, "embed"),
            # As loud as the patches: a tower trained from scratch must tell places apart from the start.
            normal(0.3),
            f"{prefix}{family.position}",
            "1 n d -> n d" if squeeze else "",
        ),
    }
    if family.patch_bias:
        parameters["patch_bias"] = encoder.bias(d, "embed", f"{prefix}{family.patch}")
    if family.class_token:
        layout = "1 1 d -> d" if squeeze else ""
        name = f"{prefix}{family.class_token}"
        parameters["class"] = Parameter((d,), ("embed",), normal(0.02), name, layout)
    if config.family == "dinov2" and config.mask_token:
        name = f"{prefix}embeddings.mask_token"
        parameters["mask"] = Parameter((d,), ("embed",), zeros, name, "1 d -> d")
    if family.pre_norm:
        parameters["pre_norm"] = encoder.norm(d, f"{prefix}{family.pre_norm}")
    parameters["layers"] = encoder.table(
        config,
        f"{prefix}{family.block}",
        family.names,
        qkv_bias=config.qkv_bias,
        layer_scale=family.layer_scale,
        gated=config.gated,
    )
    parameters["post_norm"] = encoder.norm(d, f"{prefix}{family.post_norm}")
    if family.attention_pool and config.pool_head:
        parameters["pool"] = _pool_table(config, f"{prefix}head.")
    return parameters


def _pool_table(config: ViTConfig, prefix: str) -> Table:
    d, f = config.hidden_size, config.intermediate_size
    packed = f"{prefix}attention.in_proj_"
    return {
        "probe": Parameter((d,), ("embed",), normal(d**-0.5), f"{prefix}probe", "1 1 d -> d"),
        "qkv": Parameter(
            (3, d, d), (None, "embed", "heads"), normal(d**-0.5), f"{packed}weight", "(s o) i -> s i o"
        ),
        "qkv_bias": Parameter((3, d), (None, "heads"), zeros, f"{packed}bias", "(s o) -> s o"),
        "out_proj": linear((d, "heads"), (d, "embed"), f"{prefix}attention.out_proj"),
        "out_bias": encoder.bias(d, "embed", f"{prefix}attention.out_proj"),
        "norm": encoder.norm(d, f"{prefix}layernorm"),
        "fc1": linear((d, "embed"), (f, "mlp"), f"{prefix}mlp.fc1"),
        "fc1_bias": encoder.bias(f, "mlp", f"{prefix}mlp.fc1"),
        "fc2": linear((f, "mlp"), (d, "embed"), f"{prefix}mlp.fc2"),
        "fc2_bias": encoder.bias(d, "embed", f"{prefix}mlp.fc2"),
    }


def forward(
    params: Params,
    config: ViTConfig,
    pixels: Float[Array, "b y x 3"],
    feature_layer: int = -1,
    adapter: Adapter | None = None,
) -> Float[Array, "b n d"]:
    """Hidden states after one layer: the class token first, where there is one, then the patches row by row.

    Args:
      params: see `table`.
      config: the tower.
      pixels: normalised RGB [b y x 3]; where they are not of the tower's size, its position embeddings are
        interpolated.
      feature_layer: which entry of transformers' `hidden_states` is wanted: 0 is the embeddings, -1 the last
        layer's output (before the post norm). Layers behind it are not computed.
      adapter: LoRA adapter of this tower.
    """
    return hidden_states(params, config, pixels, (feature_layer,), adapter)[0]


def hidden_states(
    params: Params,
    config: ViTConfig,
    pixels: Float[Array, "b y x 3"],
    feature_layers: Sequence[int],
    adapter: Adapter | None = None,
    target: Target | None = None,
) -> tuple[Float[Array, "b n d"], ...]:
    """As `forward`, after several layers, in the order asked for; none is computed twice.

    `target` says where activations lie; None says nothing of it.
    """
    x = _embed(params, config, pixels)
    depths = [range(config.num_layers + 1)[layer] for layer in feature_layers]
    states = {0: x}
    for start, end in pairwise([0, *sorted(set(depths) - {0})]):
        span = slice(start, end)
        layers, low_rank = jax.tree.map(lambda p: p[span], (params["layers"], part(adapter, "layers")))  # noqa: B023
        states[end] = encoder.forward(layers, config, states[start], None, low_rank, target)
    return tuple(states[depth] for depth in depths)


def pooled(params: Params, config: ViTConfig, states: Float[Array, "b n d"]) -> Float[Array, "b d"]:
    """One vector an image, from the last layer's hidden states: transformers' `pooler_output`.

    The class token after the post norm (CLIP, DINOv2), or what SigLIP's probe attends to.

    Raises:
      ValueError: where the tower has neither.
    """
    normed = layer_norm(states, params["post_norm"], config.layer_norm_eps)
    if config.has_class_token:
        return normed[:, 0]
    if "pool" not in params:
        raise ValueError("this SigLIP tower came without its pooling head (pool_head=False)")
    pool = params["pool"]

    def split(x: Array, i: int) -> Float[Array, "b n h k"]:
        projected = x @ pool["qkv"][i] + pool["qkv_bias"][i]
        return rearrange(projected, "b n (h k) -> b n h k", h=config.num_heads)

    probe = jnp.broadcast_to(pool["probe"], (states.shape[0], 1, states.shape[2]))
    mixed = attention(split(probe, 0), split(normed, 1), split(normed, 2))
    x = rearrange(mixed, "b 1 h k -> b (h k)") @ pool["out_proj"] + pool["out_bias"]
    hidden = layer_norm(x, pool["norm"], config.layer_norm_eps) @ pool["fc1"] + pool["fc1_bias"]
    return x + activation(config.activation)(hidden) @ pool["fc2"] + pool["fc2_bias"]


def _embed(params: Params, config: ViTConfig, pixels: Float[Array, "b y x 3"]) -> Float[Array, "b n d"]:
    size = config.patch_size
    rows, columns = pixels.shape[1] // size, pixels.shape[2] // size
    pixels = pixels[:, : rows * size, : columns * size].astype(params["patch"].dtype)
    patches = rearrange(pixels, "b (y p) (x q) c -> b (y x) (p q c)", p=size, q=size)
    x = patches @ rearrange(params["patch"], "y x c d -> (y x c) d")
    if "patch_bias" in params:
        x = x + params["patch_bias"]
    if config.has_class_token:
        class_token = jnp.broadcast_to(params["class"], (x.shape[0], 1, x.shape[-1]))
        x = jnp.concatenate([class_token.astype(x.dtype), x], axis=1)
    x = x + _positions(params["position"], config, rows, columns)
    if "pre_norm" in params:
        x = layer_norm(x, params["pre_norm"], config.layer_norm_eps)
    return x


def _positions(
    embeddings: Float[Array, "n d"], config: ViTConfig, rows: int, columns: int
) -> Float[Array, "m d"]:
    """Position embeddings of a grid of patches, interpolated where it is not the tower's own."""
    if (rows, columns) == (config.grid, config.grid):
        return embeddings
    class_token, grid = jnp.split(embeddings, [int(config.has_class_token)])
    square = rearrange(grid, "(y x) d -> y x d", y=config.grid).astype(jnp.float32)
    resized = jnp.einsum(
        "ry,cx,yxd->rcd", bicubic(config.grid, rows), bicubic(config.grid, columns), square
    ).astype(embeddings.dtype)
    return jnp.concatenate([class_token, rearrange(resized, "r c d -> (r c) d")])
