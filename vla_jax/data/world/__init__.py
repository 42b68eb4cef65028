"""The built-in world: rendered scenes of known objects with captions, questions and preference pairs.

It stands in for the data sets that cannot be assumed to be at hand. Its training text is biased on purpose:
of two partner categories (cup and bottle, house and tree) the annotator tends to mention both, whether or not
both are there, so that a small model trained on it hallucinates for the reason large ones do.
`TagWorld` teaches a tower to see,
`SupervisedWorld` teaches the bias, `PreferenceWorld` argues against it, and `EvaluationWorld` measures it on
scenes where company tells nothing. Every record follows from (seed, world, index) alone; a scene knows no
pixels and renders at any size.
"""

from vla_jax.data.world.categories import CATEGORIES as CATEGORIES
from vla_jax.data.world.categories import COLOURS as COLOURS
from vla_jax.data.world.categories import Category as Category
from vla_jax.data.world.config import WorldConfig as WorldConfig
from vla_jax.data.world.probes import SPLITS as SPLITS
from vla_jax.data.world.probes import Probe as Probe
from vla_jax.data.world.render import render as render
from vla_jax.data.world.scenes import Scene as Scene
from vla_jax.data.world.scenes import SceneObject as SceneObject
from vla_jax.data.world.sources import EvaluationWorld as EvaluationWorld
from vla_jax.data.world.sources import PreferenceWorld as PreferenceWorld
from vla_jax.data.world.sources import SupervisedWorld as SupervisedWorld
from vla_jax.data.world.sources import TagWorld as TagWorld
from vla_jax.data.world.sources import training_corpus as training_corpus
from vla_jax.data.world.text import CAPTION_QUESTIONS as CAPTION_QUESTIONS
from vla_jax.data.world.text import mentioned_categories as mentioned_categories
