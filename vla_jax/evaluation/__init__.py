"""Scorers of benchmarks, from texts to figures in percent, without a model and without jax.

`Vocabulary` finds the objects a text names, `chair` counts those that are not in the image, and `pope` scores
yes/no questions. Each follows its published scorer, says where it departs from it, and reports its n.
"""

from vla_jax.evaluation.chair import Chair, chair
from vla_jax.evaluation.pope import Pope, pope, says_yes
from vla_jax.evaluation.vocabulary import Mention, Vocabulary

__all__ = ["Chair", "Mention", "Pope", "Vocabulary", "chair", "pope", "says_yes"]
