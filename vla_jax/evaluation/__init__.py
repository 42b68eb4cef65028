"""Scorers of benchmarks, from texts to figures in percent, without a model and without jax.

`chair` counts the objects named (found by `data/vocabulary.py`) that are not in the image, and `pope` scores
yes/no questions. Each follows its published scorer, says where it departs from it, and reports its n.
"""

from vla_jax.data.vocabulary import Mention, Vocabulary
from vla_jax.evaluation.chair import Chair, chair
from vla_jax.evaluation.pope import Pope, pope, says_yes

__all__ = ["Chair", "Mention", "Pope", "Vocabulary", "chair", "pope", "says_yes"]
