"""From candidates to log-probabilities.

A candidate is one response read under one view; a recipe's list of candidates is static, known at trace time.
`score` gives every candidate's token log-probabilities under the policy, with each prefix computed once a
view, each view seen once, and logits only where a response is predicted; `reference_scores` those of the
frozen reference, which can be kept. `plain.py` reads each candidate's whole sequence on its own: slow,
obviously right, and kept as the reference implementation.
"""

from vla_jax.scoring.divergence import reference_divergences
from vla_jax.scoring.plain import token_log_probs
from vla_jax.scoring.scores import (
    Candidate,
    Prompted,
    ReferenceScores,
    Scores,
    TeacherForced,
    encode_views,
    reference_scores,
    same_eyes,
    score,
    with_made,
)

__all__ = [
    "Candidate",
    "Prompted",
    "ReferenceScores",
    "Scores",
    "TeacherForced",
    "encode_views",
    "reference_divergences",
    "reference_scores",
    "same_eyes",
    "score",
    "token_log_probs",
    "with_made",
]
