"""Small Hugging Face folders, made without PyTorch."""

from pathlib import Path

from tests.small_models import tiny_model
from vla_jax.interop import export_model

TINY = tiny_model()


def hugging_face_folder(path: Path, max_file_bytes: int = 5 * 10**9) -> Path:
    """The tiny model as a checkpoint of transformers; in several files where the limit asks for them."""
    export_model(path, TINY, max_file_bytes)
    return path
