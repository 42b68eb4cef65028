"""CHAIR: how much of what a caption names is not in the image (Rohrbach et al., 2018, arXiv:1809.02156)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vla_jax.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Chair:
    """CHAIR over a set of captions, in percent (0-100).

    Attributes:
      chair_s: captions that name at least one absent object / captions; lower is better.
      chair_i: mentions of absent objects / mentions, repeats counted; lower is better.
      recall: true objects that are named / true objects, each once per image; higher is better.
      n: captions.
    """

    chair_s: float
    chair_i: float
    recall: float
    n: int


def chair(captions: Sequence[str], objects: Sequence[Collection[str]], vocabulary: Vocabulary) -> Chair:
    """Scores captions against the objects their images hold.

    Recall is pooled over all images (micro-averaged). Where nothing is mentioned `chair_i` is 0, and where
    no image holds an object `recall` is 0. A model that names nothing has a perfect CHAIR: read the two with
    recall beside them.

    Args:
      captions: one generated caption an image.
      objects: for each caption the names (canonical or synonyms) of all that is in its image; may be empty.
      vocabulary: the objects that count; words outside it are not looked at.

    Raises:
      ValueError: no captions, another number of object sets, or a true object outside the vocabulary, which
        no caption could ever be credited for.
    """
    if len(captions) != len(objects):
        raise ValueError(f"chair: {len(captions)} captions but {len(objects)} sets of objects; give one each")
    if not captions:
        raise ValueError("chair: no captions; give at least one")

    hallucinated_captions = absent_mentions = mentions = found = true = 0
    for index, (caption, names) in enumerate(zip(captions, objects, strict=True)):
        try:
            present = {vocabulary.canonical(name) for name in names}
        except ValueError as error:
            raise ValueError(f"chair: true objects of caption {index}: {error}") from error
        named = [mention.name for mention in vocabulary.mentions(caption)]
        absent = sum(name not in present for name in named)
        hallucinated_captions += absent > 0
        absent_mentions += absent
        mentions += len(named)
        found += len(present.intersection(named))
        true += len(present)
    return Chair(
        chair_s=100 * hallucinated_captions / len(captions),
        chair_i=100 * absent_mentions / mentions if mentions else 0.0,
        recall=100 * found / true if true else 0.0,
        n=len(captions),
    )
