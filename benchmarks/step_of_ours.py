"""Our side of `step_vs_trl.py`: the step that all recipes share, on what the other side is given."""

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from benchmarks.step_inputs import Read, Ready, Settings, Step, make_pairs, peak_bytes
from vla_jax.data import CHOSEN, REJECTED, Batch, Encoder, Record
from vla_jax.data.batches import Kept, collate
from vla_jax.data.images import Pixels
from vla_jax.interop import Model, import_model
from vla_jax.interop.peft import is_adapter, read_adapter
from vla_jax.models import LlavaConfig, LoraConfig, llava, lora
from vla_jax.models.compute import Compute
from vla_jax.models.lora import Adapter
from vla_jax.parallel import make_mesh, replicated
from vla_jax.recipes import Recipe, named
from vla_jax.training.flops import program_flops
from vla_jax.training.optimizer import OptimizerConfig, make_optimizer
from vla_jax.training.step import Method, Metrics, Trained, make_step

# Batches are padded to the next multiple of this.
LENGTH_MULTIPLE = 16
SQUARE = 4096
# Settings any user has, as config.compute.*.
COMPUTE = Compute(unroll=True)


class Trainer:
    """The step with its state, compiled for every shape of batch that is to come.

    Args:
      settings: of the comparison.
      cached: the reference's log-probabilities come with the batch, and are not computed in the step.
    """

    def __init__(self, settings: Settings, cached: bool):
        mesh = make_mesh(devices=jax.devices()[:1])
        self.model = import_model(settings.checkpoint, str(settings.checkpoint), mesh)
        config = self.model.config
        method = make_method(config, named("dpo", {"beta": settings.beta}), settings, COMPUTE)
        start = method.init(Trained(first_adapter(self.model, settings), {}))
        # Placed as a step's own result is: else the second step would be compiled once more.
        self.state = jax.device_put(start, replicated(mesh))
        self.step = make_step(method)
        self.batches, self.prepare_seconds = prepared(self.model, settings)
        self.loaded_bytes = peak_bytes()
        if cached:
            self.batches = with_reference(method, self.model, self.batches)
        shapes = {shape_of(batch): batch for batch in self.batches}
        started = time.perf_counter()
        for batch in shapes.values():
            self.trial(batch)
        self.compile_seconds = time.perf_counter() - started
        # Counted in the program itself, padding included.
        flops = {
            shape: program_flops(self.step, self.state, self.model.params, batch)
            for shape, batch in shapes.items()
        }
        self.flops = tuple(flops[shape_of(batch)] for batch in self.batches)
        self.taken = 0

    def train(self) -> Step:
        """Takes the next step."""
        started = time.perf_counter()
        self.state, metrics = jax.block_until_ready(
            self.step(self.state, self.model.params, self.batches[self.taken])
        )
        seconds = time.perf_counter() - started
        self.taken += 1
        return Step(seconds, {name: float(value) for name, value in metrics.items()})

    def trial(self, batch: Batch) -> Metrics:
        """The metrics of a step that is not kept."""
        copy = jax.tree.map(jnp.copy, self.state)
        return jax.block_until_ready(self.step(copy, self.model.params, batch)[1])

    def rewards(self) -> Float[np.ndarray, "b 2"]:
        """Rewards [pair, chosen or rejected] of the first batch by the model as it is now.

        Read off the metrics of steps that count one pair at a time.
        """
        first = self.batches[0]
        rows = np.eye(len(first.weights), dtype=np.float32)
        metrics = [self.trial(first._replace(weights=row)) for row in rows]
        return np.array([[each["rewards/chosen"], each["rewards/rejected"]] for each in metrics], np.float32)


def serve(connection: Connection, settings: Settings, cached: bool) -> None:
    """Sends a `Ready`, an answer to each request, and at the end the most memory that was held."""
    trainer = Trainer(settings, cached)
    ready = Ready(
        sum(leaf.size for leaf in jax.tree.leaves(trainer.model.params)),
        [reads_of(batch) for batch in trainer.batches],
        trainer.prepare_seconds,
        trainer.loaded_bytes,
        trainer.compile_seconds,
        trainer.flops,
    )
    connection.send(ready)
    answers = {"step": trainer.train, "rewards": trainer.rewards, "product": product_flops_per_second}
    while trainer.taken < settings.steps:
        connection.send(answers[connection.recv()]())
    connection.send(peak_bytes())


def make_method(config: LlavaConfig, recipe: Recipe, settings: Settings, compute: Compute) -> Method:
    """The recipe with the optimizer that the comparison asks for."""
    optimizer = OptimizerConfig(
        learning_rate=settings.learning_rate,
        schedule="constant",
        warmup_ratio=0.0,
        beta1=settings.beta1,
        beta2=settings.beta2,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
    )
    return Method(config, recipe, make_optimizer(optimizer, settings.steps, llava.table(config)), 0, compute)


def first_adapter(model: Model, settings: Settings) -> Adapter:
    """The adapter that the other side wrote; where it did not run, one drawn here."""
    table = llava.table(model.config)
    if is_adapter(settings.adapter):
        return read_adapter(settings.adapter, table)[0]
    return lora.initialise(table, LoraConfig(settings.rank, settings.alpha), jax.random.key(0))


def with_reference(method: Method, model: Model, batches: Sequence[Batch]) -> list[Batch]:
    """The batches with what the reference says of them, by the engine, once."""
    score = jax.jit(method.reference_scores)
    kept = (jax.device_get(score(model.params, batch)) for batch in batches)
    return [
        batch._replace(reference=Kept(scores.tokens, scores.made))
        for batch, scores in zip(batches, kept, strict=True)
    ]


def prepared(
    model: Model, settings: Settings, length_multiple: int = LENGTH_MULTIPLE
) -> tuple[list[Batch], float]:
    """The batches in the order of their pairs, and how long one takes to make."""
    records = [
        Record(pair.key, (Pixels(pair.image),), pair.question, {CHOSEN: pair.chosen, REJECTED: pair.rejected})
        for pair in make_pairs(settings.steps * settings.pairs)
    ]
    encoder = Encoder(
        model.tokenizer,
        model.processor,
        model.config.num_image_tokens,
        (CHOSEN, REJECTED),
        max_prompt_length=1024,
        max_completion_length=1024,
        length_multiple=length_multiple,
    )
    batches, seconds = [], []
    for start in range(0, len(records), settings.pairs):
        started = time.perf_counter()
        rows = [encoder.encode(record) for record in records[start : start + settings.pairs]]
        batches.append(collate(rows, encoder))
        seconds.append(time.perf_counter() - started)
    return batches, median(seconds)


def shape_of(batch: Batch) -> tuple[tuple[int, ...], ...]:
    """What decides which compiled step a batch takes."""
    return batch.prefix_tokens.shape, batch.response_tokens.shape


def reads_of(batch: Batch) -> list[tuple[Read, ...]]:
    """What the model reads of each pair."""

    def read(row: int, response: int) -> Read:
        prompt = batch.prefix_tokens[row][batch.prefix_mask[row]]
        answer = batch.response_tokens[row, response][batch.response_mask[row, response]]
        ids = np.concatenate([prompt, answer])
        return Read(tuple(ids.tolist()), int(batch.scored[row, response].sum()))

    return [(read(row, 0), read(row, 1)) for row in range(len(batch.weights))]


def product_flops_per_second() -> float:
    """What the machine does at best: one large float32 matrix product, the fastest of several."""
    left = jax.random.normal(jax.random.key(0), (SQUARE, SQUARE), jnp.float32)
    multiply = jax.jit(jnp.matmul)

    def seconds() -> float:
        started = time.perf_counter()
        jax.block_until_ready(multiply(left, left))
        return time.perf_counter() - started

    seconds()
    return 2 * SQUARE**3 / min(seconds() for _ in range(5))
