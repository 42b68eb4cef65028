"""CLIP (Radford et al. 2021, arXiv:2103.00020) and SigLIP (Zhai et al. 2023, arXiv:2303.15343): images and
texts in one space, for their similarity. The vision tower's family tells which.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vla_jax.models import encoder, vit
from vla_jax.models.encoder import EncoderConfig, layer_norm
from vla_jax.models.parameters import Parameter, Params, Table, linear, normal
from vla_jax.models.vit import ViTConfig


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig(EncoderConfig):
    """Shape of the text tower (and see `EncoderConfig`).

    Attributes:
      vocab_size: w.
      max_positions: the longest text, in tokens.
      end_id: the token whose state stands for the text; 2, as in configs from before transformers 4.31, means
        the one with the highest id. Not read with SigLIP, where the last place stands for the text.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_layers: int = 12
    num_heads: int = 12
    vocab_size: int = 49408
    max_positions: int = 77
    end_id: int = 49407


@dataclass(frozen=True)
class ClipConfig:
    """Shape of both towers.

    Attributes:
      vision, text: the towers.
      projection_size: width e of the common space; with SigLIP that of the vision tower.

    Raises:
      ValueError: where SigLIP's towers have no pooling head, or do not fit each other.
    """

    vision: ViTConfig = field(default_factory=ViTConfig)
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    projection_size: int = 768

    def __post_init__(self) -> None:
        if self.vision.family not in ("clip", "siglip"):
            raise ValueError(f"vision.family {self.vision.family!r} has no text half; choose clip or siglip")
        if self.is_siglip and not (self.vision.pool_head and self.projection_size == self.vision.hidden_size):
            raise ValueError("SigLIP needs its pooling head, and projection_size as the vision tower's width")

    @property
    def is_siglip(self) -> bool:
        """Whether it is SigLIP's pair of towers."""
        return self.vision.family == "siglip"


def table(config: ClipConfig) -> Table:
    """The parameters of transformers' `CLIPModel` or `SiglipModel`."""
    vision, text, e = config.vision, config.text, (config.projection_size, None)
    d, prefix = text.hidden_size, "text_model."
    if config.is_siglip:
        # ln 10 and -10, SigLIP's initial temperature and bias.
        ends: Table = {
            "text_projection": linear((d, "embed"), e, f"{prefix}head"),
            "text_bias": encoder.bias(config.projection_size, None, f"{prefix}head"),
            "logit_scale": Parameter((1,), (None,), _constant(2.3026), "logit_scale"),
            "logit_bias": Parameter((1,), (None,), _constant(-10.0), "logit_bias"),
        }
    else:
        # ln(1 / 0.07), CLIP's initial temperature.
        ends = {
            "image_projection": linear((vision.hidden_size, "embed"), e, "visual_projection"),
            "text_projection": linear((d, "embed"), e, "text_projection"),
            "logit_scale": Parameter((), (), _constant(2.6592), "logit_scale"),
        }
    return {
        "vision": vit.table(vision, "vision_model."),
        "text": {
            "embedding": Parameter(
                (text.vocab_size, d),
                ("vocab", "embed"),
                normal(0.02),
                f"{prefix}embeddings.token_embedding.weight",
            ),
            "position": Parameter(
                (text.max_positions, d),
                (None, "embed"),
                normal(0.01),
                f"{prefix}embeddings.position_embedding.weight",
            ),
            "layers": encoder.table(text, f"{prefix}encoder.layers.{{layer}}."),
            "norm": encoder.norm(d, f"{prefix}final_layer_norm"),
        },
        **ends,
    }


def _constant(value: float) -> Any:
    return jax.nn.initializers.constant(value)


def image_embeddings(
    params: Params, config: ClipConfig, pixels: Float[Array, "b y x 3"], unit: bool = True
) -> Float[Array, "b e"]:
    """Images in the common space, of length 1 (or as they are); `pixels` are normalised RGB."""
    states = vit.forward(params["vision"], config.vision, pixels)
    pooled = vit.pooled(params["vision"], config.vision, states)
    projected = pooled if config.is_siglip else pooled @ params["image_projection"]
    return _unit(projected) if unit else projected


def text_states(params: Params, config: ClipConfig, tokens: Int[Array, "b t"]) -> Float[Array, "b t d"]:
    """Hidden states of the text tower after its last norm: CLIP's tokens see those before them, SigLIP's all.

    Args:
      params: see `table`.
      config: the model.
      tokens: ids, right-padded. What comes behind CLIP's end token does not matter; SigLIP was taught on
        texts padded to `max_positions`.

    Raises:
      ValueError: where the text is longer than the tower reads.
    """
    text, length = params["text"], tokens.shape[1]
    if length > config.text.max_positions:
        raise ValueError(f"a text of {length} tokens; the text tower reads {config.text.max_positions}")
    x = text["embedding"][tokens] + text["position"][:length]
    causal = None if config.is_siglip else jnp.tril(jnp.ones((length, length), bool))[None]
    x = encoder.forward(text["layers"], config.text, x, causal)
    return layer_norm(x, text["norm"], config.text.layer_norm_eps)


def text_embeddings(
    params: Params, config: ClipConfig, tokens: Int[Array, "b t"], unit: bool = True
) -> Float[Array, "b e"]:
    """Texts in the common space, of length 1 (or as they are); see `text_states`."""
    states = text_states(params, config, tokens)
    if config.is_siglip:
        projected = states[:, -1] @ params["text_projection"] + params["text_bias"]
    else:
        end = config.text.end_id
        place = jnp.argmax(tokens if end == 2 else tokens == end, axis=1)
        projected = states[jnp.arange(len(tokens)), place] @ params["text_projection"]
    return _unit(projected) if unit else projected


def logits_per_image(
    params: Params, images: Float[Array, "i e"], texts: Float[Array, "t e"]
) -> Float[Array, "i t"]:
    """Scaled cosine similarities of embeddings, float32, with SigLIP's bias where there is one."""
    similarity = jnp.einsum("ie,te->it", images, texts, preferred_element_type=jnp.float32)
    scaled = similarity * jnp.exp(params["logit_scale"].astype(jnp.float32))
    return scaled + params["logit_bias"].astype(jnp.float32) if "logit_bias" in params else scaled


def _unit(x: Float[Array, "b e"]) -> Float[Array, "b e"]:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
