"""How fast responses come: ours against transformers' `generate`, forks of one prefill against a prefill
each, and several responses against one.

    make decode                              # three rounds of everything, seven minutes on two idle cores
    python -m benchmarks.decode --rounds=1 --parts forks responses

The model has LLaVA-1.5's shape at 63 million float32 parameters, an image of 576 tokens in every prompt, and
eight rows. Contestants take turns in one process on two cores, so that what else the machine does troubles
all. Before that both sides answer greedily, and their tokens are compared. The last lines are ratios:

    generate    tokens a second over transformers', from pixels to tokens
    decoding    the same after the first token, prefill taken off on both sides
    forks       seconds of a prefill for every sentence over those of one prefill with the sentences as forks
    responses   seconds of three sampled responses to every prompt over those of one

Goals: generate 3, forks 3, responses at most 1.5.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from benchmarks.step_checkpoint import LANGUAGE
from vla_jax.host_memory import keep_freed_memory
from vla_jax.interop import import_model
from vla_jax.models import LlavaConfig, llava
from vla_jax.models.compute import Compute
from vla_jax.models.parameters import Params
from vla_jax.parallel import make_mesh
from vla_jax.rollout import Sampled, Sampling, decode, prefill, sample

CORES, ROWS, WORDS = 2, 8, 60
# A described image of five sentences, cut in the middle of each and completed.
SENTENCES, SENTENCE, COMPLETION = 5, 24, 24
RESPONSES = 3
COMPUTE = Compute(unroll=True)  # as config.compute.unroll
PARTS = {
    "generate": ("greedy", "greedy, first token", "transformers", "transformers, first token"),
    "forks": ("forks", "a prefill each"),
    "responses": ("sampled", f"{RESPONSES} sampled"),
}


def main() -> None:
    """Command line."""
    options = _options()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    keep_freed_memory()
    checkpoint = Path(options.cache) / "checkpoint"
    if not checkpoint.is_dir():
        print(f"making {checkpoint}")
        subprocess.run([sys.executable, "-m", "benchmarks.step_checkpoint", str(checkpoint)], check=True)
    model = import_model(checkpoint, str(checkpoint), make_mesh(devices=jax.devices()[:1]))
    prompts = make_prompts(model.config)
    ours = Ours(model.params, model.config, prompts)
    contestants = ours.contestants(options.new_tokens)
    if "generate" in options.parts:
        theirs = Transformers(from_checkpoint(checkpoint), prompts)
        compare(theirs.generate(options.new_tokens), ours.greedy(options.new_tokens))
        contestants["transformers"] = lambda: theirs.generate(options.new_tokens)
        contestants["transformers, first token"] = lambda: theirs.generate(1)
    predict(options.new_tokens)
    taken = take_turns(parts_of(contestants, options.parts), options.rounds)
    for line in report(taken, options.new_tokens):
        print(line)


class Prompts(NamedTuple):
    """Eight of them, and what is completed.

    Attributes:
      tokens: a question around an image.
      pixels: the images, as the vision tower reads them.
      read: the prompts, each with a description behind it.
      cuts: where in `read` sentences are cut.
    """

    tokens: Int[np.ndarray, "b s"]
    pixels: Float[np.ndarray, "b y x 3"]
    read: Int[np.ndarray, "b t"]
    cuts: Int[np.ndarray, " f"]


def make_prompts(config: LlavaConfig) -> Prompts:
    """Random words and images."""
    rng, vocabulary = np.random.default_rng(0), config.language.vocab_size
    words = rng.integers(1000, vocabulary, (ROWS, WORDS)).astype(np.int32)
    image = np.full((ROWS, config.num_image_tokens), config.image_token_id, np.int32)
    tokens = np.concatenate([words[:, :20], image, words[:, 20:]], axis=1)
    size = config.vision.image_size
    pixels = rng.standard_normal((ROWS, size, size, 3)).astype(np.float32)
    described = rng.integers(1000, vocabulary, (ROWS, SENTENCES * SENTENCE)).astype(np.int32)
    cuts = tokens.shape[1] + SENTENCE // 2 + SENTENCE * np.arange(SENTENCES)
    return Prompts(tokens, pixels, np.concatenate([tokens, described], axis=1), cuts)


class Ours:
    """The model, the prompts, and what is done with them; layers are written out or a loop, by `compute`."""

    def __init__(self, params: Params, config: LlavaConfig, prompts: Prompts, compute: Compute = COMPUTE):
        self.model, self.prompts, self.compute = (params, None, config), prompts, compute
        self.encode = jax.jit(lambda params, pixels: llava.image_features(params, config, pixels))
        self.features = self.encode(params, prompts.pixels)

    def contestants(self, new_tokens: int) -> dict[str, Callable[[], object]]:
        """What is timed, by name."""
        sampled = Sampling(new_tokens, temperature=1.0)
        return {
            "greedy": lambda: self.greedy(new_tokens),
            "greedy, first token": lambda: self.greedy(1),
            "sampled": lambda: self.sample(self.prompts.tokens, sampled).tokens,
            f"{RESPONSES} sampled": lambda: self.sample(self.prompts.tokens, sampled, count=RESPONSES).tokens,
            "forks": self.forks,
            "a prefill each": self.prefill_each,
        }

    def greedy(self, new_tokens: int) -> np.ndarray:
        """From pixels to the likeliest tokens [b t]."""
        return np.asarray(self.respond(new_tokens).tokens[:, 0])

    def respond(self, new_tokens: int) -> Sampled:
        """The same, with what goes with the tokens."""
        features = self.encode(self.model[0], self.prompts.pixels)
        return self.sample(self.prompts.tokens, Sampling(new_tokens), features)

    def sample(self, tokens: np.ndarray, sampling: Sampling, features: Any = None, count: int = 1) -> Sampled:
        """Responses to rows of full length."""
        features = self.features if features is None else features
        key, mask = jax.random.key(0), np.ones(tokens.shape, bool)
        return sample(*self.model, features, tokens, mask, sampling, key, count=count, compute=self.compute)

    def forks(self) -> np.ndarray:
        """Every sentence completed from its cut, all of them behind one prefill [b f t]."""
        read, compute = self.prompts.read, self.compute
        starts = np.tile(self.prompts.cuts, (ROWS, 1)).astype(np.int32)
        seen = np.ones(read.shape, bool)
        prefilled = prefill(*self.model, self.features, read, seen, starts=starts, compute=compute)
        made = decode(*self.model, prefilled, Sampling(COMPLETION), compute=compute)
        return np.asarray(made.tokens)

    def prefill_each(self) -> np.ndarray:
        """The same, each sentence behind a prefill of what stands before its cut."""
        read, sampling = self.prompts.read, Sampling(COMPLETION)
        made = [self.sample(read[:, :cut], sampling).tokens[:, 0] for cut in self.prompts.cuts]
        return np.stack(made, axis=1)


class Transformers:
    """The same model in PyTorch, and the same prompts."""

    def __init__(self, model: Any, prompts: Prompts, **options: Any):
        import torch

        self.model, self.options = model, options
        tokens = torch.from_numpy(prompts.tokens.astype(np.int64)).to(model.device)
        pixels = torch.from_numpy(np.moveaxis(prompts.pixels, -1, 1).copy()).to(model.device, model.dtype)
        self.inputs = {"input_ids": tokens, "attention_mask": tokens * 0 + 1, "pixel_values": pixels}

    def generate(self, new_tokens: int) -> np.ndarray:
        """Its likeliest tokens [b t], none of which ends a row."""
        made = self.model.generate(
            **self.inputs,
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            **self.options,
        )
        return made[:, self.inputs["input_ids"].shape[1] :].cpu().numpy()


def from_checkpoint(checkpoint: Path) -> Any:
    """The model in PyTorch, on the same cores."""
    import torch
    from transformers import LlavaForConditionalGeneration

    torch.set_num_threads(CORES)
    return LlavaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()


def compare(theirs: np.ndarray, ours: np.ndarray) -> None:
    """Asserts that both sides say the same.

    Raises:
      SystemExit: where they do not; says how many rows differ, and from where.
    """
    apart = theirs != ours
    if apart.any():
        places = apart.argmax(axis=1)[apart.any(axis=1)]
        raise SystemExit(f"{apart.any(axis=1).sum()} rows differ from token {places.min()} on")
    print(f"the same {ours.size} tokens on both sides, {len(np.unique(ours))} of them different")


def parts_of(contestants: Mapping[str, Callable[[], object]], parts: Sequence[str]) -> dict[str, Callable]:
    """Those of some parts, in their order, where there are such."""
    names = [name for part in parts for name in PARTS[part]]
    return {name: contestants[name] for name in names if name in contestants}


def predict(new_tokens: int) -> None:
    """Says what a greedy step reads and computes, and how long that takes at this machine's own speed."""
    layer = 4 * LANGUAGE.hidden_size**2 + 3 * LANGUAGE.hidden_size * LANGUAGE.intermediate_size
    weights = LANGUAGE.num_layers * layer + LANGUAGE.hidden_size * LANGUAGE.vocab_size
    length = WORDS + 576 + new_tokens // 2
    cached = 2 * LANGUAGE.num_layers * ROWS * length * LANGUAGE.hidden_size
    numbers = jnp.ones(64 * 2**20, jnp.float32)
    total = jax.jit(jnp.sum)
    seconds = median(timed(lambda: total(numbers).block_until_ready()) for _ in range(9))
    bandwidth = numbers.nbytes / seconds
    print(
        f"a step of {ROWS} rows reads {4 * weights / 1e6:.0f} MB of weights and {4 * cached / 1e6:.0f} MB of "
        f"cache and takes {2 * (ROWS * weights + cached) / 1e9:.2f} GFLOP; at the {bandwidth / 1e9:.0f} GB/s "
        f"that this machine reads, {4 * (weights + cached) / bandwidth * 1e3:.1f} ms"
    )


def take_turns(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, by rounds; one before them compiles."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        line = []
        for name, run in contestants.items():
            seconds = timed(run)
            line.append(f"{name} {seconds:.2f} s")
            if number:
                taken[name].append(seconds)
        print(f"round {number}: {', '.join(line)}", flush=True)
    return taken


def timed(run: Callable[[], object]) -> float:
    """Seconds until the result is there."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def report(taken: Mapping[str, list[float]], new_tokens: int) -> Iterator[str]:
    """Lines on what came out, the ratios last: medians of each round's own."""

    def after_first(side: str) -> list[float]:
        return [
            whole - first for whole, first in zip(taken[side], taken[f"{side}, first token"], strict=True)
        ]

    def ratio(title: str, above: list[float], below: list[float]) -> str:
        return f"ratio {title} {median(a / b for a, b in zip(above, below, strict=True)):.2f}"

    if "transformers" in taken:
        for side in ("greedy", "transformers"):
            step = median(after_first(side)) / (new_tokens - 1)
            yield (
                f"{side}: {ROWS * new_tokens / median(taken[side]):.0f} tokens/s, first token after "
                f"{median(taken[f'{side}, first token']):.2f} s, then {step * 1e3:.1f} ms a step of {ROWS}, "
                f"{ROWS / step:.0f} tokens/s"
            )
        yield ratio("generate", taken["transformers"], taken["greedy"])
        yield ratio("decoding", after_first("transformers"), after_first("greedy"))
    if "forks" in taken:
        yield ratio("forks", taken["a prefill each"], taken["forks"])
    if "sampled" in taken:
        yield ratio("responses", taken[f"{RESPONSES} sampled"], taken["sampled"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="timed turns of each")
    parser.add_argument("--new-tokens", type=int, default=128, help="of every response")
    parser.add_argument("--cache", default="runs/step_vs_trl", help="where the checkpoint is kept")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured")
    options = parser.parse_args()
    if options.rounds < 1 or options.new_tokens < 2:
        parser.error("at least 1 round and 2 tokens are needed")
    return options


if __name__ == "__main__":
    main()
