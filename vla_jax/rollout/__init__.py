"""Answers from the model itself: jit-compiled prefill and decoding with a key/value cache.

`sampling.py` works on token ids and knows no tokenizer; `answering.py` puts questions in words to a model.
Nothing here knows a method.
"""

from vla_jax.rollout.answering import Answerer
from vla_jax.rollout.sampling import Sampled, sample

__all__ = ["Answerer", "Sampled", "sample"]
