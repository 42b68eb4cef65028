"""A configuration says how the model that it evaluates is computed."""

from vla_jax.evaluate import answering
from vla_jax.models.compute import Compute
from vla_jax.training.configuration import default_config


def test_layers_are_written_out_as_in_training_and_attention_takes_every_length():
    config = default_config()
    assert answering(config) == Compute()
    config.compute.update(unroll=True, unroll_decoding=True, attention="splash", remat="block")
    assert answering(config) == Compute(unroll=True, unroll_decoding=True)
