"""A window of steps that JAX's profiler watches; open the trace in TensorBoard or Perfetto."""

import importlib.util
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

    Raises:
      ValueError: where the profiler would end the process.
    """

    def __init__(self, config: ProfileConfig, folder: Path, done: int):
        if config.steps:
            _check_profiler()
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


def _check_profiler() -> None:
    """libtpu's part of the profiler, loaded wherever it is installed, crashes where there is no TPU."""
    asked = jax.config.jax_platforms  # type: ignore[attr-defined]
    if not asked and jax.default_backend() != "tpu" and importlib.util.find_spec("libtpu"):
        raise ValueError(
            "profile.steps is set, and JAX's profiler crashes where libtpu is installed and no TPU is there; "
            f"set JAX_PLATFORMS={jax.default_backend()} in the environment, or leave it at 0"
        )
