"""Builds the reference cache of a run: what the model that training starts from says of every record."""

import hashlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int
from tqdm import tqdm

from vla_jax.data.batches import Kept, collate
from vla_jax.data.encoding import Encoded, Encoder
from vla_jax.data.reference_cache import ReferenceCache
from vla_jax.interop import Model
from vla_jax.models.parameters import Params
from vla_jax.parallel import batch_sharding, is_first, place, replicated, wait_for_all
from vla_jax.recipes import KeyObject, Recipe
from vla_jax.training.base_identity import fingerprint
from vla_jax.training.step import Method

MODES = ("online", "cached")


def identity(model: Model, recipe: Recipe, encoder: Encoder, seed: int) -> dict[str, Any]:
    """Everything that the reference's log-probabilities depend on besides the records.

    Views are told by what they make of one fixed image, so that an option counts if it changes them, and only
    then.
    """
    size = model.config.vision.image_size
    return {
        "model": fingerprint(model.params, model.config.to_dict()),
        "seed": seed,
        "roles": encoder.responses,
        "read": [list(candidate) for candidate in recipe.candidates],
        "made_from": [list(made) for made in recipe.made],
        "views": _views_fingerprint(recipe, size, seed),
    }


def _views_fingerprint(recipe: Recipe, size: int, seed: int) -> str:
    image = np.arange(size * size * 3, dtype=np.uint32).reshape(size, size, 3).astype(np.uint8)
    box = np.array([size // 5, size // 4, size // 2, size - size // 5], np.float32)
    mask = np.zeros((size, size), bool)
    mask[size // 4 : size - size // 5, size // 5 : size // 2] = True
    key = jax.random.fold_in(jax.random.key(seed), 1)
    views = jax.jit(recipe.make_views)(image, KeyObject(jnp.array(box), jnp.array(mask)), key)
    return hashlib.sha256(np.asarray(views).tobytes()).hexdigest()


def fill(
    cache: ReferenceCache,
    method: Method,
    base: Params,
    indices: Int[np.ndarray, " n"],
    read: Callable[[int], Encoded | None],
    encoder: Encoder,
    batch_size: int,
    mesh: Mesh,
) -> None:
    """Computes what a cache lacks of some records, with a progress bar; goes on where it was interrupted.

    Args:
      cache: where values are kept.
      method: what scores.
      base: the reference's parameters.
      indices: records that training will read.
      read: index -> encoded record; None where it is bad and skipped.
      encoder: pads them.
      batch_size: records at a time.
      mesh: the devices. Of several processes all compute, and the first writes.
    """
    wanted = np.unique(indices)
    todo = cache.missing(wanted)
    if not len(todo):
        return
    wait_for_all("missing records counted")
    said = jax.jit(lambda base, batch: method.reference_scores(base, batch), out_shardings=replicated(mesh))
    done = len(wanted) - len(todo)
    every = 0.1 if sys.stderr.isatty() else 10
    with (
        jax.set_mesh(mesh),
        tqdm(
            total=len(wanted),
            initial=done,
            desc="reference cache",
            unit="record",
            mininterval=every,
            disable=not is_first(),
        ) as bar,
    ):
        for start in range(0, len(todo), batch_size):
            chunk = todo[start : start + batch_size]
            rows = [read(int(index)) for index in chunk]
            # The last chunk keeps the others' shape.
            batch = collate([*rows, *[None] * (batch_size - len(rows))], encoder)
            spread = jax.tree.map(lambda _: batch_sharding(mesh), batch)
            tokens, made = jax.device_get(said(base, place(batch, spread)))
            if is_first():
                cache.write(chunk, rows, Kept(tokens[: len(rows)], made[: len(rows)]))
            bar.update(len(rows))
