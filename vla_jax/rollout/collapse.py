"""What a policy that collapses does: it repeats itself, and says the same whatever it is asked."""

from collections import Counter

import numpy as np
from jaxtyping import Bool, Float, Int


def repetition(
    tokens: Int[np.ndarray, "b t"], mask: Bool[np.ndarray, "b t"], n: int = 3
) -> Float[np.ndarray, " b"]:
    """Share of each answer's n-grams that stood in it before.

    Args:
      tokens: ids.
      mask: True at the answer's tokens.
      n: tokens of an n-gram.

    Returns:
      1 - distinct / all n-grams, in [0, 1); 0 where an answer is too short to repeat one.

    Source: the seq-rep-n of Welleck et al. 2020 (arXiv:1908.04319), section 6.
    """
    shares = np.zeros(len(tokens), np.float32)
    for row, (ids, kept) in enumerate(zip(tokens, mask, strict=True)):
        answer = ids[kept].tolist()
        grams = list(zip(*(answer[start:] for start in range(n)), strict=False))
        if grams:
            shares[row] = 1 - len(set(grams)) / len(grams)
    return shares


def sameness(tokens: Int[np.ndarray, "b t"], mask: Bool[np.ndarray, "b t"]) -> float:
    """How common the commonest answer is: its share of all answers.

    Args:
      tokens: ids of answers to different prompts.
      mask: True at the answers' tokens.

    Returns:
      In (0, 1]; 0 where there is no answer.
    """
    answers = Counter(tuple(ids[kept].tolist()) for ids, kept in zip(tokens, mask, strict=True))
    return max(answers.values()) / len(tokens) if answers else 0.0
