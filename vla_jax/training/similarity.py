"""What compares texts for a method, as its configuration says."""

from pathlib import Path

from ml_collections import ConfigDict

from vla_jax.interop.sentence_folder import load_sentence_encoder
from vla_jax.rewards import EmbeddingSimilarity, LexicalSimilarity, Similarity
from vla_jax.rewards.embedding import SentenceEmbedder


def similarity_of(config: ConfigDict) -> Similarity:
    """The sentence encoder in `rewards.similarity`; where that is empty, the stand-in that counts words.

    Raises:
      ValueError, OSError: where the folder holds no sentence encoder.
    """
    folder = config.rewards.similarity
    if not folder:
        return LexicalSimilarity()
    found = load_sentence_encoder(Path(folder))
    return EmbeddingSimilarity(
        SentenceEmbedder(found.config, found.params, found.tokenizer, found.max_length), folder
    )
