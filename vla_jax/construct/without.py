"""A model that is asked about images without their key object."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from vla_jax.data import Record
from vla_jax.data.batches import collate
from vla_jax.data.encoding import Encoded
from vla_jax.data.key_object import has_area
from vla_jax.generate import answerer
from vla_jax.interop import Model
from vla_jax.recipes import available, named
from vla_jax.training.beginning import recipe_of
from vla_jax.training.step import view_strips


class Without:
    """Asks each record's question, without turns before it, under the last view that a recipe makes.

    Args:
      config: says the recipe, and how long a prompt and a reply may be.
      model: who answers, greedily.

    Raises:
      ValueError: where the recipe's views do not hide the key object, or the model reads tiles, whose boxes
        nobody knows.
    """

    def __init__(self, config: ConfigDict, model: Model):
        self._recipe, self._seed = recipe_of(config), config.seed
        if not self._recipe.hides_key_object:
            hiding = ", ".join(name for name in available() if named(name).hides_key_object)
            raise ValueError(f"recipe {config.recipe!r} hides no key object; take one of {hiding}")
        if model.config.anyres:
            raise ValueError("the verifier reads images in tiles, where boxes are not known; take another")
        self._asked = answerer(model, config.data.max_prompt_length, config.evaluation.batch_size)
        self._encoder = replace(self._asked.encoder, masks=self._recipe.masks)
        self._max_new_tokens = config.evaluation.max_new_tokens

    def check(self, record: Record) -> None:
        """Reads a record as `__call__` does.

        Raises:
          DataError: where that cannot be done.
        """
        self._encoder.encode(record)

    def __call__(self, records: Sequence[Record]) -> list[str | None]:
        """The reply to each record; None where nothing of the key object is in what the model sees."""
        encoded = [self._encoder.encode(record) for record in records]
        hidden = [i for i, row in enumerate(encoded) if has_area(tuple(row.box.tolist()))]
        replies: list[str | None] = [None] * len(records)
        answers = self._asked.answer(
            self._last_views([encoded[i] for i in hidden]),
            [records[i].question for i in hidden],
            max_new_tokens=self._max_new_tokens,
        )
        for i, answer in zip(hidden, answers, strict=True):
            replies[i] = answer
        return replies

    def _last_views(self, rows: Sequence[Encoded]) -> list[UInt8[np.ndarray, "y x 3"]]:
        """Of so many rows at a time, the last ones filled up, so that one program makes all."""
        size, views = self._asked.batch_size, list[UInt8[np.ndarray, "y x 3"]]()
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            batch = collate([*part, *[None] * (size - len(part))], self._encoder)
            views += list(np.asarray(view_strips(self._recipe, batch, self._seed))[: len(part), -1])
        return views
