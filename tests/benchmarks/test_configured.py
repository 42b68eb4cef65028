"""Settings of campaigns are what the command line would make of them."""

from benchmarks.configured import configured


def test_settings_have_the_types_of_their_fields():
    settings = ["seed=2", "train.steps=7", "base.cache=/elsewhere", "evaluation.saliency=False"]
    config = configured("configs/world_dpo.py", settings)
    assert (config.seed, config.train.steps, config.base.cache) == (2, 7, "/elsewhere")
    assert config.evaluation.saliency is False
