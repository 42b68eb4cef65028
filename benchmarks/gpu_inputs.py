"""What the stages of `gpu.py` are given and give back, free of any framework."""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.step_inputs import Settings

WARM_UP = 2  # steps before those that count
NEW_TOKENS = 128  # of a response


@dataclass(frozen=True)
class Job:
    """One stage.

    Attributes:
      folder: checkpoint without weights; results and whatever else is written go beside it.
      small: shapes that show only that the code runs.
      pairs: preference pairs a step.
      steps: that count, of every measurement.
      recipe: the method.
      references: "online" computes the reference in the step, "cached" has it come with the batch.
      attention, remat: see `Compute`.
      gradient_checkpointing: of TRL.
    """

    folder: str
    small: bool
    pairs: int
    steps: int
    recipe: str = "dpo"
    references: tuple[str, ...] = ("online",)
    attention: str = "xla"
    remat: str = "block"
    gradient_checkpointing: bool = True

    @property
    def results(self) -> Path:
        """Where the stage's results go."""
        return Path(self.folder).parent / "results.jsonl"

    @property
    def settings(self) -> Settings:
        """The comparison's, at these sizes."""
        return Settings(
            Path(self.folder),
            Path(self.folder).parent / "adapter",
            WARM_UP + self.steps,
            self.gradient_checkpointing,
            self.pairs,
        )

    def say(self, **result: Any) -> None:
        """Adds a result, at once, so that being stopped later does not lose it."""
        with self.results.open("a") as file:
            file.write(json.dumps(result) + "\n")

    def arguments(self) -> list[str]:
        """For the command line of the stage."""
        return [json.dumps(asdict(self))]

    @classmethod
    def from_command_line(cls) -> "Job":
        """The one that `arguments` wrote."""
        fields = json.loads(sys.argv[1])
        return cls(**{**fields, "references": tuple(fields["references"])})


@dataclass(frozen=True)
class Measured:
    """Steps that were timed.

    Attributes:
      what: which step.
      pairs: preference pairs a step.
      seconds: of each.
      tokens: of all candidates of the first step, each counted whole, image and prompt too, padding not.
      flops: of a step's program without anything computed twice, padding included; 0 where not known.
      compile_seconds: 0 where nothing is compiled.
      bytes: of the device's memory that a step takes, parameters included; 0 where not known.
    """

    what: str
    pairs: int
    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    flops: int = 0
    compile_seconds: float = 0.0
    bytes: int = 0
