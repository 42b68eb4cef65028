"""LLaVA (Liu et al. 2023, arXiv:2310.03744): a vision tower, a two-layer projector, a language model.

`image_features` turns pixels into tokens of the language model's width; `embed` splices them in at the image
placeholders; `hidden_states` reads the whole sequence. They are apart so that a view's features are computed
once, however many responses are read under it.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vla_jax.models import llama, vit
from vla_jax.models.llama import Cache, LlamaConfig
from vla_jax.models.lora import Adapter, apply, part
from vla_jax.models.parameters import Parameter, Params, Table, linear, zeros
from vla_jax.models.vit import ViTConfig


@dataclass(frozen=True)
class LlavaConfig:
    """Shape of the model.

    Attributes:
      vision, language: the two towers.
      image_token_id: the placeholder; a prompt holds it once for every image token.
      feature_layer: which of the vision tower's hidden states is used (see `vit.forward`).
      keep_class_token: use the class token too (transformers' "full" selection).
    """

    vision: ViTConfig = field(default_factory=ViTConfig)
    language: LlamaConfig = field(default_factory=LlamaConfig)
    image_token_id: int = 32000
    feature_layer: int = -2
    keep_class_token: bool = False

    def __post_init__(self) -> None:
        layers = self.vision.num_layers
        if not -layers - 1 <= self.feature_layer <= layers:
            raise ValueError(
                f"feature_layer {self.feature_layer}: the vision tower has {layers + 1} hidden states"
            )

    @property
    def num_image_tokens(self) -> int:
        """Tokens n one image takes in the prompt."""
        return self.vision.num_patches + self.keep_class_token

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LlavaConfig":
        """The inverse of `to_dict`."""
        towers = {"vision": ViTConfig(**values["vision"]), "language": LlamaConfig(**values["language"])}
        return cls(**{**values, **towers})


def table(config: LlavaConfig) -> Table:
    """Every parameter of the model."""
    d_vision, d = config.vision.hidden_size, config.language.hidden_size
    name = "model.multi_modal_projector.linear_"
    return {
        "vision": vit.table(config.vision, "model.vision_tower."),
        "projector": {
            "fc1": linear((d_vision, None), (d, "embed"), f"{name}1"),
            "fc1_bias": Parameter((d,), ("embed",), zeros, f"{name}1.bias"),
            "fc2": linear((d, None), (d, "embed"), f"{name}2"),
            "fc2_bias": Parameter((d,), ("embed",), zeros, f"{name}2.bias"),
        },
        "language": llama.table(config.language, "model.language_model.", "lm_head"),
    }


def image_features(
    params: Params, config: LlavaConfig, pixels: Float[Array, "b y x 3"], adapter: Adapter | None = None
) -> Float[Array, "b n d"]:
    """Image tokens in the language model's space, [b n d]; `pixels` are normalised RGB [b y x 3]."""
    x = vit.forward(params["vision"], config.vision, pixels, config.feature_layer, part(adapter, "vision"))
    if not config.keep_class_token:
        x = x[:, 1:]
    projector, low_rank = params["projector"], part(adapter, "projector")
    x = apply(x, projector["fc1"], part(low_rank, "fc1")) + projector["fc1_bias"]
    x = jax.nn.gelu(x, approximate=False)
    return apply(x, projector["fc2"], part(low_rank, "fc2")) + projector["fc2_bias"]


def embed(
    params: Params, config: LlavaConfig, tokens: Int[Array, "b t"], features: Float[Array, "b n d"] | None
) -> Float[Array, "b t d"]:
    """Token embeddings, with the i-th placeholder of a row replaced by the i-th of its `features`.

    A row with fewer placeholders than features uses the first ones. Placeholders beyond the last feature (a
    model may sample them) keep their own embedding, as all do where `features` is None (decoding).
    """
    embeddings = params["language"]["embedding"][tokens]
    if features is None:
        return embeddings
    is_image = tokens == config.image_token_id
    place = jnp.cumsum(is_image, axis=1) - 1
    is_image &= place < features.shape[1]
    # Whole rows are gathered: element-wise indices would make the gradient a scatter of single numbers.
    spliced = jax.vmap(lambda rows, i: rows.at[i].get(mode="clip"))(features, jnp.maximum(place, 0))
    return jnp.where(is_image[..., None], spliced.astype(embeddings.dtype), embeddings)


def hidden_states(
    params: Params,
    config: LlavaConfig,
    tokens: Int[Array, "b t"],
    valid: Bool[Array, "b t"],
    features: Float[Array, "b n d"] | None,
    adapter: Adapter | None = None,
) -> Float[Array, "b t d"]:
    """Final hidden states of whole sequences under causal attention.

    Args:
      params: see `table`.
      config: the model.
      tokens: ids, image placeholders expanded.
      valid: False at padding, which may stand anywhere: it is never attended to and takes no position.
      features: see `image_features`.
      adapter: LoRA adapter of the model.
    """
    length = tokens.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    states, _ = llama.forward(
        params["language"],
        config.language,
        embed(params, config, tokens, features),
        positions(valid),
        causal & valid[:, None, :],
        part(adapter, "language"),
    )
    return states


def prefill(
    params: Params,
    config: LlavaConfig,
    tokens: Int[Array, "b s"],
    valid: Bool[Array, "b s"],
    features: Float[Array, "b n d"] | None,
    cache: Cache,
    adapter: Adapter | None = None,
) -> tuple[Float[Array, "b s d"], Cache]:
    """Hidden states of the prompt, and the cache (longer than the prompt) with the prompt written in."""
    length, total = tokens.shape[1], cache.keys.shape[2]
    causal = jnp.arange(total) <= jnp.arange(length)[:, None]
    seen = jnp.pad(valid, ((0, 0), (0, total - length)))
    states, filled = llama.forward(
        params["language"],
        config.language,
        embed(params, config, tokens, features),
        positions(valid),
        causal & seen[:, None, :],
        part(adapter, "language"),
        cache,
    )
    assert filled is not None
    return states, filled


def logits(params: Params, states: Float[Array, "... d"]) -> Float[Array, "... w"]:
    """Float32 logits of hidden states."""
    matrix = llama.output_matrix(params["language"])
    return jnp.einsum("...d,dw->...w", states, matrix, preferred_element_type=jnp.float32)


def positions(valid: Bool[Array, "b t"]) -> Int[Array, "b t"]:
    """Positions that count valid tokens only, so that padding on either side shifts nothing."""
    return jnp.maximum(jnp.cumsum(valid, axis=1) - 1, 0)
