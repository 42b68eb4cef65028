"""A window of steps that JAX's profiler watches; open the trace in TensorBoard or Perfetto."""

from dataclasses import dataclass
from pathlib import Path

import jax


@dataclass(frozen=True)
class ProfileConfig:
    """Which steps are profiled.

    Attributes:
      start: the first of them, counted from where this start of the run began, so that compiling is over.
      steps: how many; 0 profiles none.
    """

    start: int = 3
    steps: int = 0


class Profiler:
    """Profiles its window of the steps that it is told of; `with` it, a trace that is begun is ended.

    Args:
      config: the window.
      folder: where the trace goes.
      done: steps done before.
    """

    def __init__(self, config: ProfileConfig, folder: Path, done: int):
        self._first = done + 1 + config.start
        self._last, self._folder, self._running = self._first + config.steps, folder, False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop()

    def before(self, step: int) -> None:
        """To be called before each step."""
        if step == self._first < self._last:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif step == self._last:
            self._stop()

    def _stop(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
