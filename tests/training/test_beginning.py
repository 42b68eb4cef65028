"""How a batch is split into parts on a mesh."""

import pytest
from jax.sharding import AbstractMesh

from vla_jax.training.beginning import microbatches_of
from vla_jax.training.configuration import default_config


@pytest.mark.parametrize(
    "rows, most, devices, parts",
    [
        (64, 0, 1, 1),
        (64, 4, 1, 16),
        (64, 4, 8, 8),  # a row of every device's, though 4 were asked for
        (64, 16, 8, 4),
        (96, 24, 16, 6),  # 24 rows cannot be spread over 16 devices; 32 are too many
        (16, 64, 8, 1),
    ],
)
def test_every_part_has_as_many_rows_of_each_device(rows, most, devices, parts):
    config = default_config()
    config.train.batch_size, config.train.microbatch_size = rows, most
    # Heads that are split share their rows.
    mesh = AbstractMesh((1, devices, 2), ("data", "fsdp", "tensor"))
    assert microbatches_of(config, mesh) == parts
