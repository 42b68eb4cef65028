"""What judges a response: judges of pairs, verifiers of its words, similarity of texts. Knows no method.

`judging.py` says what a judge is, `opening.py` makes one from its settings. A run's reward model reads one
response at a time where they are sampled; judges read two in a drawn order, as `blind.py` shows
them: a checkpoint of ours, a server, a file of replies, a function of yours, each in a file of its own. What
is put to them in words is in `annotating.py`, how their words are read in `reading.py`. `entities.py` says
which words of a response name things. Nothing exported here loads jax; `embedding.py`, which runs a sentence
encoder for `similarity.py`, does.
"""

from vla_jax.rewards.judging import Comparison, Judge, JudgeError, Verdict, tally
from vla_jax.rewards.opening import HOW_ASKED, JudgeConfig, check_present, opened_judge
from vla_jax.rewards.similarity import EmbeddingSimilarity, LexicalSimilarity, Similarity

__all__ = [
    "HOW_ASKED",
    "Comparison",
    "EmbeddingSimilarity",
    "Judge",
    "JudgeConfig",
    "JudgeError",
    "LexicalSimilarity",
    "Similarity",
    "Verdict",
    "check_present",
    "opened_judge",
    "tally",
]
