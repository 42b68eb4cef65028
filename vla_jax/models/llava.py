"""LLaVA (Liu et al. 2023, arXiv:2310.03744) and LLaVA-NeXT: a vision tower, a two-layer projector, a language
model.

`image_features` turns pixels into tokens of the language model's width (`tiled_features` the tiles of an
image of any shape); `embed` splices them in at the image placeholders; `hidden_states` reads the whole
sequence. They are apart so that a view's features are computed once, however many responses are read under
it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int

from vla_jax.models import llama, reward, vit
from vla_jax.models.activations import activation
from vla_jax.models.branches import branches
from vla_jax.models.compute import Compute
from vla_jax.models.llama import Cache, LlamaConfig
from vla_jax.models.lora import Adapter, apply, part
from vla_jax.models.parameters import Parameter, Params, Table, linear, normal, zeros
from vla_jax.models.target import Target
from vla_jax.models.vit import ViTConfig


@dataclass(frozen=True)
class LlavaConfig:
    """Shape of the model.

    Attributes:
      vision, language: the two towers.
      image_token_id: the placeholder; a prompt holds it once for every image token.
      feature_layer: which of the vision tower's hidden states is used (see `vit.forward`); of several, the
        features stand side by side.
      keep_class_token: use the first token too (transformers' "full" selection). Without it ("default") the
        first token is left out, which in a tower without a class token (SigLIP) is a patch.
      projector_activation: by its Hugging Face name.
      projector_bias: whether the projector's layers have biases.
      anyres: LLaVA-NeXT: images come in tiles, and a learnt vector ends each row of the grid.
      reward_head: a linear layer reads a reward off the language model's states.
      value_head: another one expects a reward before each token; for training only.
    """

    vision: ViTConfig = field(default_factory=ViTConfig)
    language: LlamaConfig = field(default_factory=LlamaConfig)
    image_token_id: int = 32000
    feature_layer: int | tuple[int, ...] = -2
    keep_class_token: bool = False
    projector_activation: str = "gelu"
    projector_bias: bool = True
    anyres: bool = False
    reward_head: bool = False
    value_head: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.feature_layer, int):
            object.__setattr__(self, "feature_layer", tuple(self.feature_layer))
        layers = self.vision.num_layers
        for layer in self.feature_layers:
            if not -layers - 1 <= layer <= layers:
                raise ValueError(f"feature_layer {layer}: the vision tower has {layers + 1} hidden states")
        activation(self.projector_activation)
        if self.anyres and self.num_image_tokens != self.vision.num_patches:
            raise ValueError("LLaVA-NeXT lays its tiles out by patches: one token a patch, no other token")

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """`feature_layer`, as several even if it is one."""
        return (self.feature_layer,) if isinstance(self.feature_layer, int) else self.feature_layer

    @property
    def num_image_tokens(self) -> int:
        """Tokens n one image, or one tile of it, takes."""
        return self.vision.num_tokens - (not self.keep_class_token)

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
    d = config.language.hidden_size
    d_vision = config.vision.hidden_size * len(config.feature_layers)
    name = "multi_modal_projector.linear_"
    projector: dict[str, Any] = {
        "fc1": linear((d_vision, None), (d, "embed"), f"{name}1"),
        "fc2": linear((d, None), (d, "embed"), f"{name}2"),
    }
    if config.projector_bias:
        for i in (1, 2):
            projector[f"fc{i}_bias"] = Parameter((d,), ("embed",), zeros, f"{name}{i}.bias")
    tower = "vision_tower." if config.vision.family == "dinov2" else "vision_tower.vision_model."
    parameters: dict[str, Any] = {
        "vision": vit.table(config.vision, tower),
        "projector": projector,
        "language": llama.table(config.language, "language_model.model.", "language_model.lm_head"),
    }
    if config.anyres:
        parameters["newline"] = Parameter((d,), ("embed",), normal(d**-0.5), "image_newline")
    if config.reward_head:
        parameters["reward"] = reward.table(d)
    if config.value_head:
        parameters["value"] = reward.value_table(d)
    return parameters


def image_features(
    params: Params,
    config: LlavaConfig,
    pixels: Float[Array, "b y x 3"],
    adapter: Adapter | None = None,
    target: Target | None = None,
) -> Float[Array, "b n d"]:
    """Image tokens in the language model's space, [b n d].

    Args:
      params: see `table`.
      config: the model.
      pixels: normalised RGB.
      adapter: LoRA adapter of the model.
      target: where activations lie; None says nothing of it.

    Raises:
      ValueError: where the pixels are not of the tower's size: the prompt has a fixed number of placeholders.
    """
    size = config.vision.image_size
    if pixels.shape[1:3] != (size, size):
        raise ValueError(f"pixels of {pixels.shape[1]} x {pixels.shape[2]}; the tower reads {size} x {size}")
    states = vit.hidden_states(
        params["vision"], config.vision, pixels, config.feature_layers, part(adapter, "vision"), target
    )
    x = jnp.concatenate([state if config.keep_class_token else state[:, 1:] for state in states], axis=-1)
    projector, low_rank = params["projector"], part(adapter, "projector")

    def project(x: Array, name: str) -> Array:
        return apply(x, projector[name], part(low_rank, name), projector.get(f"{name}_bias"))

    hidden = activation(config.projector_activation)(project(x, "fc1").astype(jnp.float32))
    return project(hidden.astype(x.dtype), "fc2")


def tiled_features(
    params: Params,
    config: LlavaConfig,
    pixels: Float[Array, "b v y x 3"],
    layout: Int[Array, "b t"],
    adapter: Adapter | None = None,
    target: Target | None = None,
) -> Float[Array, "b t d"]:
    """Image tokens of images in several tiles, or of several images, in the order that a layout gives.

    LLaVA-NeXT's: the whole image's first, then the grid's rows with a newline after each.

    Args:
      params: see `table`.
      config: the model.
      pixels: normalised tiles, padded to the same number in every row of the batch.
      layout: order of the tokens, as indices into [newline, first tile's tokens, second tile's, ...]. What
        pads a row's end is up to the caller.
      adapter: LoRA adapter of the model.
      target: see `image_features`.
    """
    tiles = rearrange(pixels, "b v y x c -> (b v) y x c")
    features = rearrange(
        image_features(params, config, tiles, adapter, target), "(b v) n d -> b (v n) d", v=pixels.shape[1]
    )
    # Only LLaVA-NeXT has one, and only its layouts ask for it.
    newline = params.get("newline", jnp.zeros(features.shape[2], features.dtype))
    newline = jnp.broadcast_to(newline, (features.shape[0], 1, features.shape[2]))
    rows = jnp.concatenate([newline.astype(features.dtype), features], axis=1)
    return jax.vmap(lambda rows, order: rows.at[order].get(mode="clip"))(rows, layout)


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


def branch_states(
    params: Params,
    config: LlavaConfig,
    features: Float[Array, "b v n d"],
    prefix_tokens: Int[Array, "b s"],
    prefix_valid: Bool[Array, "b s"],
    response_tokens: Int[Array, "b r t"],
    response_valid: Bool[Array, "b r t"],
    candidates: Sequence[tuple[int, int]],
    adapter: Adapter | None = None,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> Float[Array, "b c t d"]:
    """The final hidden states that predict the tokens of every candidate, with prefixes computed once a view.

    Args:
      params: see `table`.
      config: the model.
      features: image tokens of each view.
      prefix_tokens, prefix_valid: prompts with expanded image placeholders, left-padded.
      response_tokens, response_valid: responses, right-padded.
      candidates: (view, response) index pairs.
      adapter: LoRA adapter of the model.
      compute: kernels, and what the backward pass keeps.

    Returns:
      The state at [b c t] has read the candidate's prefix and the t tokens of its response before this one.
    """
    views, responses = (tuple(part) for part in zip(*candidates, strict=True))
    shown = sorted(set(views))
    prefixes = jnp.stack([embed(params, config, prefix_tokens, features[:, view]) for view in shown], axis=1)
    words = params["language"]["embedding"][response_tokens[:, responses]]
    # The last token of a prefix begins its branches: what predicts a response's first token is then a state
    # of the branch, prefixes are there to be looked at only, and the response's last token is never read.
    last = jnp.stack([prefixes[:, shown.index(view), -1:] for view in views], axis=1)
    begun = prefix_valid[:, None, -1:].repeat(len(candidates), axis=1)
    return branches(
        params["language"],
        config.language,
        jnp.pad(prefixes[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0))),
        jnp.pad(prefix_valid[:, :-1], ((0, 0), (1, 0))),
        jnp.concatenate([last, words[:, :, :-1].astype(last.dtype)], axis=2),
        jnp.concatenate([begun, response_valid[:, responses, :-1]], axis=2),
        [shown.index(view) for view in views],
        part(adapter, "language"),
        compute,
    )


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
        key_positions=positions(seen),
    )
    assert filled is not None
    return states, filled


def logits(params: Params, states: Float[Array, "... d"]) -> Float[Array, "... w"]:
    """Float32 logits of hidden states."""
    matrix = llama.output_matrix(params["language"])
    if states.dtype == jnp.float16:
        # XLA's CPU has no product of float16 that adds up in float32.
        states, matrix = states.astype(jnp.float32), matrix.astype(jnp.float32)
    return jnp.einsum("...d,dw->...w", states, matrix, preferred_element_type=jnp.float32)


def positions(valid: Bool[Array, "b t"]) -> Int[Array, "b t"]:
    """Positions that count valid tokens only, so that padding on either side shifts nothing."""
    return jnp.maximum(jnp.cumsum(valid, axis=1) - 1, 0)
