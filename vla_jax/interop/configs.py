"""A LLaVA's shape between Hugging Face's `config.json` and ours.

What this library cannot compute as PyTorch does (another activation, scaled rotary positions, an unknown
tower) is an error here, before anything large is read.
"""

from collections.abc import Mapping
from typing import Any

import transformers

from vla_jax.models import LlamaConfig, LlavaConfig, ViTConfig

_MODELS = ("llava", "llava_next")
_LANGUAGE = ("llama", "mistral", "qwen2")
_VISION = {"clip_vision_model": "clip", "siglip_vision_model": "siglip", "dinov2": "dinov2"}
_ARCHITECTURES = {
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
}


def from_hugging_face(
    config: Any,
    pixel_mean: tuple[float, float, float] | None = None,
    pixel_std: tuple[float, float, float] | None = None,
) -> LlavaConfig:
    """Our configuration of a transformers `LlavaConfig` or `LlavaNextConfig`.

    Args:
      config: it, with all defaults filled in (as `AutoConfig.from_pretrained` gives it).
      pixel_mean, pixel_std: what the checkpoint's image processor normalises with; None takes CLIP's.

    Raises:
      ValueError: names what is not supported, and what is.
    """
    _one_of("model_type", config.model_type, _MODELS)
    return LlavaConfig(
        vision=vision_from_hugging_face(config.vision_config, pixel_mean, pixel_std),
        language=_language(config.text_config, config.tie_word_embeddings),
        image_token_id=config.image_token_index,
        feature_layer=config.vision_feature_layer,
        keep_class_token=config.vision_feature_select_strategy == "full",
        projector_activation=config.projector_hidden_act,
        projector_bias=config.multimodal_projector_bias,
        anyres=config.model_type == "llava_next",
    )


def _language(config: Any, tied: bool) -> LlamaConfig:
    _one_of("text_config.model_type", config.model_type, _LANGUAGE)
    _one_of("text_config.hidden_act", config.hidden_act, ("silu",))
    rope = config.rope_parameters
    _one_of("text_config.rope_parameters.rope_type", rope["rope_type"], ("default",))
    window, full_layers = _window(config)
    # A config may carry fields of the model it was made from, which PyTorch does not look at either.
    llama, qwen2 = config.model_type == "llama", config.model_type == "qwen2"
    biased = llama and config.attention_bias
    width = 0 if qwen2 else config.head_dim or 0
    if width * config.num_attention_heads == config.hidden_size:
        width = 0  # nothing of its own
    return LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        rope_theta=rope["rope_theta"],
        rms_norm_eps=config.rms_norm_eps,
        tie_embeddings=tied,
        head_dim=width,
        qkv_bias=qwen2 or biased,
        out_bias=biased,
        mlp_bias=llama and config.mlp_bias,
        sliding_window=window,
        full_layers=full_layers,
    )


def _window(config: Any) -> tuple[int, int]:
    """The sliding window, 0 for none, and how many of the first layers have none."""
    if config.model_type == "llama":
        return 0, 0
    window = config.sliding_window or 0
    kinds = config.layer_types if config.model_type == "qwen2" else None
    if not window or kinds is None:
        return window, 0
    full = kinds.count("full_attention")
    if kinds != ["full_attention"] * full + ["sliding_attention"] * (len(kinds) - full):
        raise ValueError(
            f"text_config.layer_types {kinds} is not supported: layers with full attention must come first"
        )
    return (window, full) if full < len(kinds) else (0, 0)


def vision_from_hugging_face(
    config: Any,
    pixel_mean: tuple[float, float, float] | None,
    pixel_std: tuple[float, float, float] | None,
) -> ViTConfig:
    """Our configuration of a tower of transformers; see `from_hugging_face`."""
    family = _VISION[_one_of("vision_config.model_type", config.model_type, tuple(_VISION))]
    for side in ("image_size", "patch_size"):
        if not isinstance(getattr(config, side), int):
            raise ValueError(f"vision_config.{side} {getattr(config, side)} is not supported: one number")
    shape: dict[str, Any] = {}
    if family == "dinov2":
        gated = config.use_swiglu_ffn
        width = int(config.hidden_size * config.mlp_ratio)
        # As transformers rounds it.
        shape["intermediate_size"] = (int(width * 2 / 3) + 7) // 8 * 8 if gated else width
        shape |= {"gated": gated, "qkv_bias": config.qkv_bias, "mask_token": config.use_mask_token}
    else:
        shape["intermediate_size"] = config.intermediate_size
    if family == "siglip":
        shape["pool_head"] = getattr(config, "vision_use_head", True)
    if pixel_mean is not None:
        shape["pixel_mean"] = pixel_mean
    if pixel_std is not None:
        shape["pixel_std"] = pixel_std
    return ViTConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        layer_norm_eps=config.layer_norm_eps,
        activation=config.hidden_act,
        family=family,
        **shape,
    )


def _one_of(field: str, value: str, supported: tuple[str, ...]) -> str:
    if value not in supported:
        raise ValueError(f"{field} is {value!r}, which is not supported; supported: {', '.join(supported)}")
    return value


def to_hugging_face(
    config: LlavaConfig,
    *,
    dtype: str,
    bos_token_id: int | None,
    eos_token_id: int | None,
    pad_token_id: int | None,
    pinpoints: tuple[tuple[int, int], ...] = (),
) -> Mapping[str, Any]:
    """The `config.json` of a model that was made here.

    Raises:
      ValueError: where no configuration of transformers says it.
    """
    language, vision = config.language, config.vision
    tokens = {"bos_token_id": bos_token_id, "eos_token_id": eos_token_id, "pad_token_id": pad_token_id}
    shape = {
        "vocab_size": language.vocab_size,
        "hidden_size": language.hidden_size,
        "intermediate_size": language.intermediate_size,
        "num_hidden_layers": language.num_layers,
        "num_attention_heads": language.num_heads,
        "num_key_value_heads": language.num_kv_heads,
        "rms_norm_eps": language.rms_norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": language.rope_theta},
        "tie_word_embeddings": language.tie_embeddings,
        **tokens,
    }
    text: Any
    if language.qkv_bias and not language.out_bias:
        if language.head_dim or language.mlp_bias:
            raise ValueError("Qwen2's decoder has neither a head_dim of its own nor mlp_bias")
        text = transformers.Qwen2Config(
            **shape,
            use_sliding_window=bool(language.sliding_window),
            sliding_window=language.sliding_window or None,
            max_window_layers=language.full_layers,
        )
    elif language.sliding_window:
        if language.qkv_bias or language.out_bias or language.mlp_bias or language.full_layers:
            raise ValueError("Mistral's decoder has neither biases nor layers without a window")
        text = transformers.MistralConfig(
            **shape, head_dim=language.head_size, sliding_window=language.sliding_window
        )
    else:
        if language.qkv_bias != language.out_bias:
            raise ValueError("Llama's attention has biases everywhere or nowhere")
        text = transformers.LlamaConfig(
            **shape,
            head_dim=language.head_size,
            attention_bias=language.qkv_bias,
            mlp_bias=language.mlp_bias,
        )
    common = {
        "vision_config": vision_to_hugging_face(vision),
        "text_config": text,
        "image_token_index": config.image_token_id,
        "projector_hidden_act": config.projector_activation,
        "multimodal_projector_bias": config.projector_bias,
        "vision_feature_layer": (
            config.feature_layer if isinstance(config.feature_layer, int) else list(config.feature_layer)
        ),
        "vision_feature_select_strategy": "full" if config.keep_class_token else "default",
        "image_seq_length": config.num_image_tokens,
        "tie_word_embeddings": language.tie_embeddings,
    }
    kind = "llava_next" if config.anyres else "llava"
    theirs = (
        transformers.LlavaNextConfig(**common, image_grid_pinpoints=[list(p) for p in pinpoints])
        if config.anyres
        else transformers.LlavaConfig(**common)
    )
    return {**theirs.to_dict(), "architectures": [_ARCHITECTURES[kind]], "dtype": dtype}


def vision_to_hugging_face(vision: ViTConfig) -> Any:
    """The configuration that transformers has for a tower."""
    shape: dict[str, Any] = {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "hidden_size": vision.hidden_size,
        "num_hidden_layers": vision.num_layers,
        "num_attention_heads": vision.num_heads,
        "layer_norm_eps": vision.layer_norm_eps,
        "hidden_act": vision.activation,
    }
    if vision.family == "clip":
        return transformers.CLIPVisionConfig(**shape, intermediate_size=vision.intermediate_size)
    if vision.family == "siglip":
        return transformers.SiglipVisionConfig(
            **shape, intermediate_size=vision.intermediate_size, vision_use_head=vision.pool_head
        )
    ratio = vision.intermediate_size / vision.hidden_size
    if vision.gated or int(vision.hidden_size * ratio) != vision.intermediate_size:
        raise ValueError("a DINOv2 tower made here must have a plain feed-forward layer of a whole ratio")
    return transformers.Dinov2Config(
        **shape, mlp_ratio=ratio, qkv_bias=vision.qkv_bias, use_mask_token=vision.mask_token
    )
