"""A small LLaVA, supervised on the built-in world's biased text: what the alignment configs start from."""

from ml_collections import ConfigDict

from vla_jax.training.configuration import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.recipe = "sft"
    config.base.config = "configs/world_tower.py"
    # The tower learns from all the world can show and then stays as it is; what is said about it is kept
    # plain, so that a few minutes on two cores teach it: bare nouns, one sentence, questions about what is
    # there.
    config.base.inherit = ("seed", "model")
    # Company alone must not tell nearly everything, or the model never learns to look.
    config.world.cooccurrence = 0.5
    config.world.prior_mentions = 0.5
    config.world.colour_words = 0.0
    config.world.size_words = 0.0
    config.world.max_sentences = 1
    config.world.swap_fraction = 1.0
    config.world.questions_per_record = 3
    config.world.caption_first = 0.0  # an answer that follows a caption can be read off it
    config.world.existence_questions = 0.85
    config.data.source = "world_supervised"
    config.data.max_completion_length = 72
    config.train.steps = 1500
    config.train.batch_size = 32
    config.train.microbatch_size = 8  # fits the cache of a core
    config.train.frozen = "^vision/"
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.matrix_learning_rate = 6e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.beta2 = 0.99
    config.optimizer.weight_decay = 0.01
    config.checkpoint.every = 300
    config.evaluation.scenes = 0
    return config
