"""Models on disk: our own folders, Hugging Face's, and PEFT's.

`model_folder.py` writes and reads what `train` leaves behind and what `evaluate` and `generate` open.
`hugging_face.py` takes whole LLaVAs in and gives them back: `configs.py` translates their shape, `names.py`
the names of their tensors, `weights.py` moves tensors between a parameter table and `checkpoint.py` (reading)
or `safetensors_writer.py` (writing), one at a time. `peft.py` does the same for adapters. `folders.py` lets
what is written appear whole or not at all.
"""

from vla_jax.interop.checkpoint import CheckpointError
from vla_jax.interop.hugging_face import export_adapter, export_model, find, import_model
from vla_jax.interop.model_folder import Model, load_model, save_model

__all__ = [
    "CheckpointError",
    "Model",
    "export_adapter",
    "export_model",
    "find",
    "import_model",
    "load_model",
    "save_model",
]
