"""CLIP (Radford et al. 2021, arXiv:2103.00020): images and texts in one space, for their similarity."""

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
        the one with the highest id.
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
      projection_size: width e of the common space.
    """

    vision: ViTConfig = field(default_factory=ViTConfig)
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    projection_size: int = 768


def table(config: ClipConfig) -> Table:
    """The parameters of transformers' `CLIPModel`."""
    vision, text, e = config.vision, config.text, (config.projection_size, None)
    d, prefix = text.hidden_size, "text_model."
    # ln(1 / 0.07), CLIP's initial temperature.
    scale: Any = jax.nn.initializers.constant(2.6592)
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
        "image_projection": linear((vision.hidden_size, "embed"), e, "visual_projection"),
        "text_projection": linear((d, "embed"), e, "text_projection"),
        "logit_scale": Parameter((), (), scale, "logit_scale"),
    }


def image_embeddings(
    params: Params, config: ClipConfig, pixels: Float[Array, "b y x 3"]
) -> Float[Array, "b e"]:
    """Images in the common space, of length 1; `pixels` are normalised RGB."""
    states = vit.forward(params["vision"], config.vision, pixels)
    return _unit(vit.pooled(params["vision"], config.vision, states) @ params["image_projection"])


def text_states(params: Params, config: ClipConfig, tokens: Int[Array, "b t"]) -> Float[Array, "b t d"]:
    """Hidden states of the text tower after its last norm, each token seeing those before it.

    Args:
      params: see `table`.
      config: the model.
      tokens: ids, right-padded: what comes behind the end token does not matter.

    Raises:
      ValueError: where the text is longer than the tower reads.
    """
    text, length = params["text"], tokens.shape[1]
    if length > config.text.max_positions:
        raise ValueError(f"a text of {length} tokens; CLIP's text tower reads {config.text.max_positions}")
    x = text["embedding"][tokens] + text["position"][:length]
    causal = jnp.tril(jnp.ones((length, length), bool))[None]
    x = encoder.forward(text["layers"], config.text, x, causal)
    return layer_norm(x, text["norm"], config.text.layer_norm_eps)


def text_embeddings(params: Params, config: ClipConfig, tokens: Int[Array, "b t"]) -> Float[Array, "b e"]:
    """Texts in the common space, of length 1; see `text_states`."""
    end = config.text.end_id
    place = jnp.argmax(tokens if end == 2 else tokens == end, axis=1)
    states = text_states(params, config, tokens)
    return _unit(states[jnp.arange(len(tokens)), place] @ params["text_projection"])


def logits_per_image(
    params: Params, images: Float[Array, "i e"], texts: Float[Array, "t e"]
) -> Float[Array, "i t"]:
    """Scaled cosine similarities of embeddings (Radford et al. 2021, figure 3), float32."""
    similarity = jnp.einsum("ie,te->it", images, texts, preferred_element_type=jnp.float32)
    return similarity * jnp.exp(params["logit_scale"].astype(jnp.float32))


def _unit(x: Float[Array, "b e"]) -> Float[Array, "b e"]:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
