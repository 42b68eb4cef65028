"""Shapes of the published LLaVAs, for programs that are compiled where there are no weights."""

from dataclasses import dataclass
from pathlib import Path

from vla_jax.data.image_processing import ImageProcessor
from vla_jax.models import LlamaConfig, LlavaConfig

_VICUNA_7B = LlamaConfig()
_VICUNA_13B = LlamaConfig(
    hidden_size=5120, intermediate_size=13824, num_layers=40, num_heads=40, num_kv_heads=40
)
_MISTRAL_7B = LlamaConfig(intermediate_size=14336, num_kv_heads=8, rope_theta=1e6)
_NEXT = ImageProcessor(
    336, (336, 336), pinpoints=((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
)


@dataclass(frozen=True)
class Published:
    """A published checkpoint, as far as the shapes of arrays go.

    Attributes:
      config: the model's shape.
      processor: fits images into it.
    """

    config: LlavaConfig
    processor: ImageProcessor


# By the folder that the configs import each into; their docstrings say where it comes from.
PUBLISHED = {
    "llava-1.5-7b": Published(LlavaConfig(language=_VICUNA_7B), ImageProcessor.square(336)),
    "llava-1.5-13b": Published(LlavaConfig(language=_VICUNA_13B), ImageProcessor.square(336)),
    "llava-1.6-7b": Published(LlavaConfig(language=_VICUNA_7B, anyres=True), _NEXT),
    "llava-1.6-mistral-7b": Published(LlavaConfig(language=_MISTRAL_7B, anyres=True), _NEXT),
}


def published(folder: str) -> Published:
    """The checkpoint that a configuration's `base.model` is named after.

    Raises:
      ValueError: where no shape is known by that name.
    """
    name = Path(folder).name
    if name not in PUBLISHED:
        known = ", ".join(PUBLISHED)
        raise ValueError(f"no shape is known of base.model={folder!r}; name it as one of {known}")
    return PUBLISHED[name]
