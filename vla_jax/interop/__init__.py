"""Models on disk: our own folder of safetensors and a tokenizer.

`model_folder.py` writes and reads what `train` leaves behind and what `evaluate` and `generate` open.
"""

from vla_jax.interop.model_folder import Model, load_model, save_model

__all__ = ["Model", "load_model", "save_model"]
