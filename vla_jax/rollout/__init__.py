"""Responses from the model itself: jit-compiled prefill and decoding with a key/value cache.

    sampling = Sampling(max_new_tokens=64, end_ids=(2,), temperature=1.0)
    prefilled = prefill(params, adapter, config, features, tokens, mask)      # [b s], read once
    decode(params, adapter, config, prefilled, sampling, key, count=3)        # Sampled [b 3 t], at the end
    sample(params, adapter, config, features, tokens, mask, sampling, key)    # both in one: [b 1 t]
    search(params, adapter, config, prefilled, sampling, Beams(4))            # [b 4 t] and scores

With `prefill(..., starts=places)` responses begin at places [b f] of the sequences: [b f t].

`choosing.py` says which token comes next (`Sampling`), `prefilling.py` reads sequences, `decoding.py` writes
responses as forks of them, `beams.py` searches, `plain.py` is the reference without a cache that tests
compare with. These work on token ids and know no tokenizer; `answering.py` puts questions in words to a
model, `sentences.py` finds sentences in tokens, and `completions.py` completes responses of which a
beginning is given. Nothing here knows a method.
"""

from vla_jax.rollout.answering import Answerer
from vla_jax.rollout.beams import Beams, search
from vla_jax.rollout.choosing import Sampling
from vla_jax.rollout.completions import Beginning, Completions, Sight, Speaker
from vla_jax.rollout.decoding import Sampled, decode
from vla_jax.rollout.prefilling import Prefilled, prefill
from vla_jax.rollout.sampling import sample

__all__ = [
    "Answerer",
    "Beams",
    "Beginning",
    "Completions",
    "Prefilled",
    "Sampled",
    "Sampling",
    "Sight",
    "Speaker",
    "decode",
    "prefill",
    "sample",
    "search",
]
