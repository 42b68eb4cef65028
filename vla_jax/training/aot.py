"""Compiles the real training step for a TPU pod, on a machine that has none, and says what it takes.

    python -m vla_jax.training.aot --config=configs/llava15_7b_lpoi.py --topology=v5e:4x4 [--config.a.b=c ...]

Method, optimizer, batch, shardings, parts of a batch and remat are what `vla_jax.train` would use with this
configuration on that many chips, at the longest prompt and responses; attention is the TPU's kernel. Only the
weights are missing: shapes stand for them. Needs libtpu (`pip install vla_jax[pods]`), no TPU and no network.

Printed are the bytes of one chip, the FLOPs of a step over all of them, counted in the program as it is
written (matrix products and convolutions; see `flops.py`), and how long a step would take at 40 % of the
chips' peak. The exit status is 1 where the step does not fit into 90 % of a chip's memory.
"""

import hashlib
import json
import math
import re
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import jax
from absl import app, flags, logging
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from vla_jax.command_line import parse_flags, refuse_words
from vla_jax.interop import Model
from vla_jax.parallel import check_rows, make_mesh, replicated, rows_apart
from vla_jax.training.abstract import abstract_base, abstract_batch, abstract_model, abstract_state
from vla_jax.training.assembly import check_model
from vla_jax.training.beginning import method_of, microbatches_of, reads_base, recipe_of
from vla_jax.training.configuration import check
from vla_jax.training.flops import program_flops
from vla_jax.training.programs import GIB, Memory
from vla_jax.training.step import make_step
from vla_jax.training.topology import chip_of, devices_of

# Share of a chip's memory that a step may take, and of its peak that it is assumed to reach.
FILL, UTILISATION = 0.9, 0.4


@dataclass(frozen=True)
class Compiled:
    """What a step takes on a pod.

    Attributes:
      topology: the pod.
      chips: how many it has.
      rows: of a batch, over all chips.
      rows_at_once: of one chip's rows, those that go through the model at a time.
      arguments, temporaries, outputs: bytes a chip; outputs are those that take no argument's place. Where
        the compiler finds no room for a program, temporaries are what it says they would take.
      limit: bytes that a step may take of a chip.
      seconds: it took to compile.
      flops: of a step, over all chips.
      step_seconds: estimated.
      identity: of the program, see `PodStep`.
    """

    topology: str
    chips: int
    rows: int
    rows_at_once: int
    arguments: int
    temporaries: int
    outputs: int
    limit: int
    seconds: float
    flops: int
    step_seconds: float
    identity: str

    @property
    def total(self) -> int:
        """Bytes a chip."""
        return self.arguments + self.temporaries + self.outputs

    @property
    def fits(self) -> bool:
        """Whether that is little enough."""
        return self.total <= self.limit

    def __str__(self) -> str:
        arguments, temporaries, outputs, total, limit = (
            f"{size / GIB:.2f}"
            for size in (self.arguments, self.temporaries, self.outputs, self.total, self.limit)
        )
        verdict = "fits" if self.fits else "DOES NOT FIT"
        return (
            f"{self.topology}: {self.chips} chips, {self.rows} rows a step, {self.rows_at_once} at a time on "
            f"a chip\nGiB of a chip: {arguments} arguments + {temporaries} temporaries + {outputs} outputs = "
            f"{total}\ncompiled in {self.seconds:.0f} s\n{self.flops:.3g} FLOPs a step, about "
            f"{self.step_seconds:.2f} s at {UTILISATION:.0%} of the chips' peak\n"
            f"{verdict}: {total} of {limit} GiB, {FILL:.0%} of a chip's memory"
        )


@dataclass(frozen=True)
class PodStep:
    """A run's training step for a pod, traced and not yet compiled.

    Attributes:
      config: the run's.
      model: where it starts, with shapes for weights.
      topology: the pod.
      mesh: its chips.
      traced: the step.
      arguments: (state, base parameters, batch), as shapes on the mesh.
    """

    config: ConfigDict
    model: Model
    topology: str
    mesh: Mesh
    traced: Any
    arguments: tuple[Any, ...]

    @property
    def identity(self) -> str:
        """A short hash of the program and of where its arguments lie: of all that the configuration and this
        library say to the compiler."""
        program = re.sub(r"0x[0-9a-f]+", "", str(self.traced.jaxpr))
        where = [
            (leaf.shape, str(leaf.dtype), leaf.sharding.spec) for leaf in jax.tree.leaves(self.arguments)
        ]
        return hashlib.sha256(f"{program}{where}{self.mesh}".encode()).hexdigest()[:16]

    def compile(self) -> Compiled:
        """Compiles it."""
        started = time.monotonic()
        with jax.set_mesh(self.mesh):
            sizes = _sizes(self.traced.lower(), self.arguments)
        seconds, flops = time.monotonic() - started, self.flops()
        rows, chips, chip = self.config.train.batch_size, self.mesh.size, chip_of(self.topology)
        at_once = rows // microbatches_of(self.config, self.mesh) // rows_apart(self.mesh)
        limit, step_seconds = int(FILL * chip.memory), flops / (chips * chip.peak * UTILISATION)
        return Compiled(
            self.topology, chips, rows, at_once, *sizes, limit, seconds, flops, step_seconds, self.identity
        )

    def flops(self) -> int:
        """FLOPs of a step over all chips: of the same step on one device with plain attention, since a
        kernel's inside and one device's share say nothing of the whole."""
        alone, config = make_mesh(devices=jax.devices()[:1]), self.config.copy_and_resolve_references()
        config.compute.attention = "xla"
        method = method_of(config, self.model.config, recipe_of(config), jax.default_backend(), alone)
        return program_flops(make_step(method, microbatches_of(config, self.mesh)), *self.arguments)


def trace_step(config: ConfigDict, model: Model, topology: str) -> PodStep:
    """A run's training step for a pod.

    Args:
      config: the run's; its attention is the one that is compiled.
      model: where it starts, with shapes for weights.
      topology: the pod.

    Raises:
      ValueError: where the configuration does not suit the model or the pod.
    """
    mesh = make_mesh(**config.mesh.to_dict(), devices=devices_of(topology))
    recipe = recipe_of(config)
    if recipe.rollout is not None:
        raise ValueError(
            f"recipe {config.recipe!r} samples between its steps, and only steps are compiled ahead of time"
        )
    check_model(config, model, recipe)
    check_rows(mesh, config.train.batch_size)
    method = method_of(config, model.config, recipe, "tpu", mesh)
    state = abstract_state(config, mesh, model, recipe, method)
    base = abstract_base(config, mesh, model) if reads_base(config, recipe) else {}
    arguments = state, base, abstract_batch(config, mesh, model, recipe)
    placement = jax.tree.map(lambda leaf: leaf.sharding, state), replicated(mesh)
    step: Any = make_step(
        method, microbatches_of(config, mesh), placement, config.train.on_nonfinite == "skip"
    )
    with jax.set_mesh(mesh):
        traced = step.trace(*arguments)
    return PodStep(config, model, topology, mesh, traced, arguments)


def _sizes(lowered: jax.stages.Lowered, arguments: Any) -> tuple[int, int, int]:
    """Bytes of arguments, temporaries and outputs of what is compiled; see `Compiled`."""
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not (needed := re.search(r"on HBM.* temporaries \(([\d.]+)([KMGT])\)", str(error))):
            raise
        leaves = jax.tree.leaves(arguments)
        shards = sum(math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in leaves)
        return shards, int(float(needed[1]) * 1024 ** (1 + "KMGT".index(needed[2]))), 0
    memory, stats = Memory.of(program), program.memory_analysis()
    assert memory is not None and stats is not None
    temporaries = stats.temp_size_in_bytes
    return memory.arguments, temporaries, memory.temporaries - temporaries


def with_kernel(config: ConfigDict, attention: str = "splash") -> ConfigDict:
    """The configuration with an attention for TPUs.

    Compiled, not run: whether it has been compared on a TPU is for the run to ask.
    """
    config = config.copy_and_resolve_references()
    config.compute.attention, config.compute.allow_unverified = attention, True
    return config


def main(argv: list[str]) -> None:
    """Command line."""
    refuse_words(argv)
    logging.set_verbosity(logging.ERROR)
    try:
        check(_CONFIG.value)
        config = with_kernel(_CONFIG.value, _ATTENTION.value)
        compiled = trace_step(config, abstract_model(config), _TOPOLOGY.value or "").compile()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(asdict(compiled)) if _JSON.value else compiled)
    sys.exit(0 if compiled.fits else 1)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    _CONFIG = config_flags.DEFINE_config_file("config", None, "What to compile: a config file.")
    _TOPOLOGY = flags.DEFINE_string("topology", None, "For which pod, e.g. v5e:4x4.")
    _ATTENTION = flags.DEFINE_enum("attention", "splash", ["splash", "xla"], "By kernel, or plain.")
    _JSON = flags.DEFINE_bool("json", False, "Print the figures as JSON, sizes in bytes.")
    flags.mark_flags_as_required(["config", "topology"])
    app.run(main, flags_parser=parse_flags)
