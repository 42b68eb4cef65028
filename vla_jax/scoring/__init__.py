"""From candidates to log-probabilities.

A candidate is one response read under one view; a recipe's list of candidates is static, known at trace time.
`score` gives every candidate's token log-probabilities under the policy and the frozen reference. `plain.py`
reads each candidate's whole sequence on its own: slow, obviously right, and kept as the reference
implementation.
"""

from vla_jax.scoring.plain import token_log_probs
from vla_jax.scoring.scores import Candidate, Scores, score

__all__ = ["Candidate", "Scores", "score", "token_log_probs"]
