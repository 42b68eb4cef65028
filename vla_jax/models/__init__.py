"""Models as pure functions over plain parameter trees: `forward(params, config, inputs)`.

Each model declares its parameters once, in a table (`parameters.py`): shape, logical axes, initialiser and
Hugging Face name. Initial values, abstract shapes, shardings and weights from or for PyTorch all come from
that table. `vit.py` (CLIP, SigLIP, DINOv2, on `encoder.py`) and `llama.py` (Llama, Mistral, Qwen2) are the
towers, `llava.py` joins them, `lora.py` adapts them. For scoring: `clip.py` (images and texts in one space),
`reward.py` (a scalar head), `sentence_encoder.py` (BERT, MPNet). `linen.py` makes a Flax module of any.
"""

from vla_jax.models.llama import Cache, LlamaConfig
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import LoraConfig
from vla_jax.models.parameters import Parameter, Table
from vla_jax.models.vit import ViTConfig

__all__ = ["Cache", "LlamaConfig", "LlavaConfig", "LoraConfig", "Parameter", "Table", "ViTConfig"]
