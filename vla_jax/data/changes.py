"""Which tokens set two responses apart: what an annotator changed of an answer."""

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np
from jaxtyping import Bool

# Shorter matches are chance: "the" stands everywhere.
_SHORTEST_MATCH = 3


def changed_tokens(
    first: Sequence[int], second: Sequence[int]
) -> tuple[Bool[np.ndarray, " t"], Bool[np.ndarray, " u"]]:
    """Marks the tokens of either response that lie in no common run of at least three.

    Source: RLHF-V (Yu et al. 2023, arXiv:2312.00849), section 3.2: dense direct preference optimisation.
    """
    changed = np.ones(len(first), bool), np.ones(len(second), bool)
    matcher = SequenceMatcher(None, list(first), list(second), autojunk=False)
    for match in matcher.get_matching_blocks():
        if match.size >= _SHORTEST_MATCH:
            changed[0][match.a : match.a + match.size] = False
            changed[1][match.b : match.b + match.size] = False
    return changed
