"""Losses on segmentation masks and embeddings: which is better, and whether a refined answer is."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def soft_iou(
    mask_probabilities: Float[Array, "*b y x"], target: Float[Array, "*b y x"] | Bool[Array, "*b y x"]
) -> Float[Array, "*b"]:
    """Intersection over union of soft masks: sum p t / sum (p + t - p t).

    Args:
      mask_probabilities: p, each pixel's probability, in [0, 1].
      target: t, the true mask, or another soft one.

    Returns:
      In [0, 1], one an example; the IoU itself where both masks are 0 and 1; 1 where both are empty.
    """
    truth = target.astype(mask_probabilities.dtype)
    shared = mask_probabilities * truth
    union = jnp.sum(mask_probabilities + truth - shared, axis=(-2, -1))
    empty = union == 0
    return jnp.where(empty, 1, jnp.sum(shared, axis=(-2, -1)) / jnp.where(empty, 1, union))


def iou_preference(
    middle: Float[Array, "*b d"], best: Float[Array, "*b d"], worst: Float[Array, "*b d"], beta: float = 10.0
) -> Float[Array, "*b"]:
    """Draws a segmentation embedding towards that of a better mask and away from that of a worse one.

    -log sigmoid(beta [cos(middle, best) - cos(middle, worst)])

    Args:
      middle: embeddings whose masks are neither the best nor the worst of three by IoU; alone trained.
      best: embeddings of the best masks, held constant.
      worst: embeddings of the worst masks, held constant.
      beta: scale; the paper finds 5 to 15 alike.

    Returns:
      One loss an example; log 2 where best and worst are equally near.

    Source: POPEN, segmentation preference (main paper's Eq. 4, reconstructed).
    """
    best, worst = jax.lax.stop_gradient((best, worst))
    return -jax.nn.log_sigmoid(beta * (_cosine(middle, best) - _cosine(middle, worst)))


def soft_iou_improvement(
    refined: Float[Array, "*b n y x"],
    sampled: Float[Array, "*b r n y x"],
    target: Float[Array, "*b n y x"] | Bool[Array, "*b n y x"],
    present: Bool[Array, "*b n"],
    beta: float = 10.0,
) -> Float[Array, "*b"]:
    """Asks that a refined response segments its objects better than the responses it was made from.

    -mean over responses and objects of log sigmoid(beta [IoU(refined, target) - IoU(sampled, target)])

    Args:
      refined: mask probabilities of the n objects of the refined response.
      sampled: those of the r sampled responses, matched to the same objects; held constant where they are
        what is to be beaten, since making them worse would improve nothing.
      target: the true masks.
      present: True at objects that exist; the others pad.
      beta: scale.

    Returns:
      One loss an example; log 2 where nothing improved, 0 where no object is present.

    Source: POPEN's supplement, Eq. 2 (L_si); soft masks in its IoU are reconstructed.
    """
    sampled = jax.lax.stop_gradient(sampled)
    targets = jnp.broadcast_to(target[..., None, :, :, :], sampled.shape)
    gains = soft_iou(refined, target)[..., None, :] - soft_iou(sampled, targets)
    losses = jnp.mean(-jax.nn.log_sigmoid(beta * gains), axis=-2)
    objects = jnp.sum(present, axis=-1).astype(losses.dtype)
    return jnp.sum(jnp.where(present, losses, 0), axis=-1) / jnp.maximum(objects, 1)


def text_improvement(
    likelihood: Float[Array, "*b"],
    refined: Float[Array, "*b d"],
    sampled: Float[Array, "*b r d"],
    target: Float[Array, "*b d"],
    beta: float = 10.0,
) -> Float[Array, "*b"]:
    """Makes a refined response likelier as it is nearer to the truth than the responses it was made from.

    -mean over responses of log sigmoid(beta p(refined) [cos(refined, target) - cos(sampled, target)])

    Args:
      likelihood: p, the policy's likelihood of the refined response, normalised by length; alone trained.
      refined: sentence features of the refined response, held constant like all features.
      sampled: of the r sampled responses.
      target: of the true response.
      beta: scale.

    Returns:
      One loss an example; log 2 where nothing improved.

    Source: POPEN's supplement, Eq. 1 (L_ti).
    """
    refined, sampled, target = jax.lax.stop_gradient((refined, sampled, target))
    targets = jnp.broadcast_to(target[..., None, :], sampled.shape)
    gains = _cosine(refined, target)[..., None] - _cosine(sampled, targets)
    return jnp.mean(-jax.nn.log_sigmoid(beta * likelihood[..., None] * gains), axis=-1)


def _cosine(one: Float[Array, "*b d"], other: Float[Array, "*b d"]) -> Float[Array, "*b"]:
    """Cosine similarity; 0, with no gradient, where a vector is 0."""
    return jnp.sum(_unit(one) * _unit(other), axis=-1)


def _unit(vector: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    squares = jnp.sum(jnp.square(vector), axis=-1, keepdims=True)
    zero = squares == 0
    return jnp.where(zero, 0, vector * jax.lax.rsqrt(jnp.where(zero, 1, squares)))
