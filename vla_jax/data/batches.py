"""What one training step reads, and how encoded records are padded into it. A batch is plain NumPy."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt32

from vla_jax.data.encoding import Encoded, Encoder


class Kept(NamedTuple):
    """What the frozen reference said of a batch.

    Attributes:
      tokens: log-probabilities of every candidate's tokens.
      made: ids of the responses that it made.
    """

    tokens: Float[np.ndarray, "b c t"]
    made: Int[np.ndarray, "b m t"]


class Experience(NamedTuple):
    """What was found out about sampled responses before an update reads them.

    Attributes:
      log_probs: of each token under the policy that sampled it.
      advantages: what each token is worth.
      returns: what the value head should have said before each token; None where there is no such head.
      values: what it did say.
    """

    # NumPy's arrays in a batch, JAX's where an objective reads them.
    log_probs: Float[Any, "b r t"]
    advantages: Float[Any, "b r t"]
    returns: Float[Any, "b r t"] | None = None
    values: Float[Any, "b r t"] | None = None


class Batch(NamedTuple):
    """What one training step reads, as NumPy arrays.

    Attributes:
      images: fitted images, black where a record has none; with a layout, the tiles of all its images, padded
        to the same number.
      boxes: key object of each, in pixels of the fitted image (of the first tile).
      prefix_tokens, prefix_mask: prompts with expanded image placeholders, left-padded.
      response_tokens, response_mask: responses, right-padded.
      scored: response tokens that count in the loss.
      record_ids: hash of each record's key; with the seed it fixes the record's random views.
      weights: 1, or 0 for a row that stands in for a bad record.
      masks: pixels of the key object; None where the encoder gives none.
      changed: response tokens that set the first two responses apart; None where the encoder marks none.
      layout: order of the image tokens in a row's tiles; None where each row has one image of one tile.
      reference: what the frozen reference said of the batch, where it was kept.
      experience: what is known of responses that were sampled; None where they are the data's.
    """

    images: UInt8[np.ndarray, "b *k y x 3"]
    boxes: Float[np.ndarray, "b 4"]
    prefix_tokens: Int[np.ndarray, "b s"]
    prefix_mask: Bool[np.ndarray, "b s"]
    response_tokens: Int[np.ndarray, "b r t"]
    response_mask: Bool[np.ndarray, "b r t"]
    scored: Bool[np.ndarray, "b r t"]
    record_ids: UInt32[np.ndarray, " b"]
    weights: Float[np.ndarray, " b"]
    masks: Bool[np.ndarray, "b y x"] | None = None
    changed: Bool[np.ndarray, "b r t"] | None = None
    layout: Int[np.ndarray, "b n"] | None = None
    reference: Kept | None = None
    experience: Experience | None = None


def collate(
    rows: Sequence[Encoded | None], encoder: Encoder, longest: tuple[int, int] | None = None
) -> Batch:
    """Pads rows to the encoder's lengths; None becomes a row of weight 0 with one valid token.

    Args:
      rows: the records.
      encoder: what encoded them.
      longest: tokens of the longest prompt and response of the batch, where more belong to it than are here.
    """
    size, roles, present = len(rows), len(encoder.responses), [row for row in rows if row is not None]
    if longest is None:
        prompts = [len(row.prefix) for row in present]
        longest = (
            max(prompts, default=1),
            max((len(ids) for row in present for ids in row.responses), default=1),
        )
    prompt, completion = encoder.padded(*longest)
    tiles, image_tokens = encoder.most_tiles_and_tokens()
    in_tiles = encoder.tiled

    prefix = np.zeros((size, prompt), np.int32)
    prefix_mask = np.zeros(prefix.shape, bool)
    # A row that attends to nothing would still be finite, but would make its neighbours' padding differ.
    prefix_mask[:, -1] = True
    responses = np.zeros((size, roles, completion), np.int32)
    response_mask, scored = np.zeros(responses.shape, bool), np.zeros(responses.shape, bool)
    images = np.zeros((size, *((tiles,) if in_tiles else ()), *encoder.processor.tile_size, 3), np.uint8)
    boxes, record_ids, weights = (
        np.zeros((size, 4), np.float32),
        np.zeros(size, np.uint32),
        np.zeros(size, np.float32),
    )
    masks = np.zeros((size, *encoder.processor.tile_size), bool) if encoder.masks else None
    changed = np.zeros(responses.shape, bool) if encoder.changes else None
    layout = np.zeros((size, image_tokens), np.int32) if in_tiles else None
    for i, row in enumerate(rows):
        if row is None:
            continue
        boxes[i], record_ids[i], weights[i] = row.box, row.record_id, 1
        prefix[i, -len(row.prefix) :], prefix_mask[i, -len(row.prefix) :] = row.prefix, True
        for j, (ids, counted) in enumerate(zip(row.responses, row.scored, strict=True)):
            responses[i, j, : len(ids)], response_mask[i, j, : len(ids)] = ids, True
            scored[i, j, : len(ids)] = counted
            if changed is not None and row.changed is not None:
                changed[i, j, : len(ids)] = row.changed[j]
        if masks is not None and row.mask is not None:
            masks[i] = row.mask
        if layout is None or row.layout is None:
            images[i] = row.image
        else:
            images[i, : len(row.image)], layout[i, : len(row.layout)] = row.image, row.layout
    return Batch(
        images,
        boxes,
        prefix,
        prefix_mask,
        responses,
        response_mask,
        scored,
        record_ids,
        weights,
        masks,
        changed,
        layout,
    )
