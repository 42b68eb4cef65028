"""Losses as pure functions of arrays; they know no model, no trainer and no configuration object.

A function takes rewards `beta (log policy - log reference)`, or log-probabilities, of whole batches and
returns one loss an example. Averaging is the trainer's business. All arithmetic is in float32 (or the wider
dtype it is given).
"""

from vla_jax.objectives.listwise import plackett_luce
from vla_jax.objectives.preference import anchor, dpo
from vla_jax.objectives.supervised import negative_log_likelihood

__all__ = ["anchor", "dpo", "negative_log_likelihood", "plackett_luce"]
