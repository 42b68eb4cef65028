"""LLaVAs drawn at random: a small configuration of transformers, a model of it, and prompts for it."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from tests.parity.pytorch_models import channels_first, loud, to_torch  # noqa: E402
from vla_jax.data.anyres import layout  # noqa: E402

IMAGE = 7
PINPOINTS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]


def draw_config(seed: int) -> Any:
    """A `LlavaConfig` or `LlavaNextConfig`; over the seeds, every switch comes up both ways."""
    rng = np.random.default_rng(seed)

    def pick(*options: Any) -> Any:
        return options[rng.integers(len(options))]

    heads = int(pick(2, 3, 4))
    vision_heads = int(pick(1, 2, 3))
    anyres, tower = seed % 3 == 2, ("clip", "clip", "siglip", "clip", "dinov2")[seed % 5]
    layers = int(pick(2, 3, 4))
    vision = {
        "image_size": 24,
        "patch_size": int(pick(6, 8)),
        "hidden_size": vision_heads * int(pick(7, 9, 12)),
        "num_hidden_layers": layers,
        "num_attention_heads": vision_heads,
    }
    if tower == "dinov2":
        vision_config = transformers.Dinov2Config(**vision, mlp_ratio=2)
    elif tower == "siglip":
        vision_config = transformers.SiglipVisionConfig(
            **vision, intermediate_size=30, hidden_act="gelu_pytorch_tanh", vision_use_head=bool(pick(0, 1))
        )
    else:
        vision_config = transformers.CLIPVisionConfig(**vision, intermediate_size=int(pick(29, 40)))
    tied = bool(pick(False, True))
    text = {
        "vocab_size": int(pick(61, 80)),
        "hidden_size": heads * int(pick(6, 10)),
        "intermediate_size": int(pick(37, 50)),
        "num_hidden_layers": int(pick(2, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": int(pick(1, heads)),
        "rms_norm_eps": float(pick(1e-5, 1e-6)),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(pick(1e4, 5e5))},
        "tie_word_embeddings": tied,
    }
    kind = ("llama", "mistral", "qwen2", "mistral")[seed % 4]
    if kind == "llama":
        text_config = transformers.LlamaConfig(
            **text, head_dim=int(pick(6, 8)), attention_bias=bool(pick(0, 1)), mlp_bias=bool(pick(0, 1))
        )
    elif kind == "mistral":
        # Windows shorter than the sequence.
        text_config = transformers.MistralConfig(**text, sliding_window=pick(None, 5, 9))
    else:
        text_config = transformers.Qwen2Config(
            **text, use_sliding_window=bool(pick(0, 1)), sliding_window=6, max_window_layers=1
        )
    # A tower without a class token can only be laid out in tiles whole.
    full = bool(pick(0, 1)) if not anyres else tower == "siglip"
    common = {
        "vision_config": vision_config,
        "text_config": text_config,
        "image_token_index": IMAGE,
        "vision_feature_layer": pick(-1, -2, 1, [-1, 1], [0, -2, -1]),
        "vision_feature_select_strategy": "full" if full else "default",
        "projector_hidden_act": pick("gelu", "silu"),
        "multimodal_projector_bias": bool(pick(True, True, False)),
        "tie_word_embeddings": tied,
    }
    if anyres:
        return transformers.LlavaNextConfig(**common, image_grid_pinpoints=PINPOINTS)
    return transformers.LlavaConfig(**common)


def build(config: Any, seed: int = 0) -> Any:
    """The model, with eager attention: PyTorch's other kernels differ among themselves."""
    if config.model_type == "llava_next":
        model = transformers.LlavaNextForConditionalGeneration(config)
    else:
        model = transformers.LlavaForConditionalGeneration(config)
    model.set_attn_implementation("eager")
    return loud(model, seed)


class Prompts:
    """Two prompts with an image each, the shorter one left-padded.

    Attributes:
      pixels: [b y x 3], or [b tiles y x 3] with its `layouts` where images come in tiles.
      tokens, mask: ids with expanded placeholders, and where they are not padding.
      sizes: height and width of the images that the tiles were cut from.
    """

    def __init__(self, config: Any, seed: int):
        rng = np.random.default_rng(seed)
        side = config.vision_config.image_size // config.vision_config.patch_size
        full = config.vision_feature_select_strategy == "full"
        extra = config.vision_config.model_type != "siglip_vision_model"
        self.layouts = None
        if config.model_type == "llava_next":
            self.sizes = [(40, 30), (21, 50)]
            pinpoints = [tuple(p) for p in config.image_grid_pinpoints]
            orders = [layout(*size, pinpoints, 24, side) for size in self.sizes]
            counts = [len(order) for order in orders]
            self.layouts = np.zeros((2, max(counts)), np.int32)
            for row, order in zip(self.layouts, orders, strict=True):
                row[: len(order)] = order
            self.pixels = rng.normal(size=(2, 5, 24, 24, 3)).astype(np.float32)
        else:
            counts = [side**2 - (not extra) * (not full) + (extra and full)] * 2
            self.pixels = rng.normal(size=(2, 24, 24, 3)).astype(np.float32)
        lengths = [count + words for count, words in zip(counts, (9, 4), strict=True)]
        self.tokens = rng.integers(IMAGE + 1, config.text_config.vocab_size, (2, max(lengths)))
        self.mask = np.ones(self.tokens.shape, bool)
        for row, (count, length) in enumerate(zip(counts, lengths, strict=True)):
            start = max(lengths) - length
            self.mask[row, :start] = False
            self.tokens[row, start + 2 : start + 2 + count] = IMAGE

    def for_torch(self) -> dict[str, Any]:
        """Inputs of the reference."""
        inputs = {
            "pixel_values": channels_first(self.pixels),
            "input_ids": to_torch(self.tokens),
            "attention_mask": to_torch(self.mask.astype(np.int64)),
        }
        if self.layouts is not None:
            inputs["image_sizes"] = torch.tensor(self.sizes)
        return inputs
