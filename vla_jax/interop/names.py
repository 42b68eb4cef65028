"""The names of a LLaVA's tensors: as checkpoints store them, and as PyTorch's modules are called.

Parameter tables say the names that the published checkpoints have and that every release of transformers
reads (`language_model.model.layers.0…`, `vision_tower.vision_model.encoder…`). Since transformers 4.52 the
modules are called otherwise (`model.language_model.layers.0…`), and so are tensors in adapters of PEFT and in
checkpoints that were saved without renaming.
"""

import re
from collections.abc import Sequence

_Rules = Sequence[tuple[re.Pattern[str], str]]


def _rules(*pairs: tuple[str, str]) -> _Rules:
    return [(re.compile(pattern), target) for pattern, target in pairs]


_TO_STORED = _rules(
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.(vision_tower|multi_modal_projector|image_newline)", r"\1"),
    # CLIP and SigLIP; DINOv2 never had the second prefix, and its parts are called otherwise.
    (
        r"^vision_tower\.(?=embeddings\.(patch|class|position)_embedding(\.|$)|encoder\.layers\.|pre_layr|post_l|head\.)",
        "vision_tower.vision_model.",
    ),
    (r"(\.layer\.\d+\.attention)\.q_proj\.", r"\1.attention.query."),
    (r"(\.layer\.\d+\.attention)\.k_proj\.", r"\1.attention.key."),
    (r"(\.layer\.\d+\.attention)\.v_proj\.", r"\1.attention.value."),
    (r"(\.layer\.\d+\.attention)\.o_proj\.", r"\1.output.dense."),
)

_TO_MODULE = _rules(
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^vision_tower\.(vision_model\.)?", "model.vision_tower."),
    (r"^(multi_modal_projector|image_newline)", r"model.\1"),
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
)

# Buffers that old releases saved beside the parameters; PyTorch computes them anew.
_BUFFER = re.compile(r"(^|\.)(position_ids|rotary_emb\.inv_freq)$")


def stored_name(name: str) -> str:
    """A tensor's name as published checkpoints have it, from that of any release."""
    return _renamed(name, _TO_STORED)


def module_name(stored: str) -> str:
    """A tensor's name in the modules of current transformers, from its stored one."""
    return _renamed(stored, _TO_MODULE)


def is_buffer(name: str) -> bool:
    """Whether a tensor is no parameter but a table that old releases saved."""
    return _BUFFER.search(name) is not None


def _renamed(name: str, rules: _Rules) -> str:
    for pattern, target in rules:
        name = pattern.sub(target, name)
    return name
