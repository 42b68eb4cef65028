"""What a method is given that makes the responses it learns from, and what it gives back.

Such a method goes round after round: it takes a batch of prompts, lets the policy answer, finds out what the
answers are worth, and hands the step a batch like any other. `Rollout` says how; `Policy` is what it works
with.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vla_jax.data import Batch, Record
from vla_jax.rewards import Judge, Similarity
from vla_jax.rewards.verifier import Verified
from vla_jax.rollout import Sampled, Speaker
from vla_jax.scoring import Scores


@dataclass(frozen=True)
class Policy:
    """A model in the midst of training, as a rollout sees it.

    Attributes:
      key: of this round's randomness; on every process the same.
      sample: batch, responses a prompt, temperature, key -> that many responses of each prompt [b k t], as
        long as the batch's responses may be.
      scores: batch with responses -> the recipe's candidates under policy and reference.
      end_ids: the tokens that end a response.
      texts: responses [b r t] and their mask -> their words; rows first.
      divergences: batch with responses -> KL(reference || policy) at each token of each candidate.
      records: the records of this round's rows, or of those of the round so many later; None where one is
        bad.
      reward: batch with responses -> what a reward model says of each candidate [b c]; None without one.
      judge: compares two responses in words; None without one.
      verify: batch with responses, whether every token of a word has its score -> what a verifier says of
        their words; None without one.
      prepared: what `Rollout.prepare` found before the first round.
      speaker: the model itself, for what samples otherwise.
      similarity: how alike two texts are; None where the rollout asks for none.
    """

    key: PRNGKeyArray
    sample: Callable[[Batch, int, float, PRNGKeyArray], Sampled]
    scores: Callable[[Batch], Scores]
    end_ids: tuple[int, ...]
    texts: Callable[[Int[np.ndarray, "b r t"], Bool[np.ndarray, "b r t"]], list[list[str]]]
    divergences: Callable[[Batch], Float[Array, "b c t"]]
    records: Callable[..., Sequence[Record | None]]
    reward: Callable[[Batch], Float[np.ndarray, "b c"]] | None
    judge: Judge | None
    verify: Callable[[Batch, bool], Verified] | None
    prepared: Mapping[str, float]
    speaker: Speaker | None = None
    similarity: Similarity | None = None


class Collected(NamedTuple):
    """What a round has made.

    Attributes:
      batch: the prompts' batch with responses and, for policy gradients, experience.
      metrics: figures to log beside the step's.
      samples: some prompts with what was answered and what it was worth, for people.
      provenance: how the responses of each row were made, as JSON can hold it, for data sets of them.
    """

    batch: Batch
    metrics: Mapping[str, float]
    samples: Sequence[Mapping[str, Any]] = ()
    provenance: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Rollout:
    """How a method makes the responses that it learns from.

    Attributes:
      collect: a policy and a batch -> the batch with responses.
      prepare: a policy and batches of the training data -> figures that all rounds use; done once, before the
        first round.
      epochs: how often a round's batch is gone through.
      minibatches: updates each time.
      rewards: whether it asks a reward model.
      judge: whether it asks a judge; a reward model can be the judge.
      verifier: whether it asks a verifier of words.
      similarity: whether it compares texts.
      roles: what the responses it makes are called in a data set; they stand behind the batch's others.
    """

    collect: Callable[[Policy, Batch], Collected]
    prepare: Callable[[Policy, Iterable[Batch]], Mapping[str, float]] | None = None
    epochs: int = 1
    minibatches: int = 1
    rewards: bool = False
    judge: bool = False
    verifier: bool = False
    similarity: bool = False
    roles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.minibatches < 1:
            raise ValueError(f"a round needs an epoch and a minibatch: {self.epochs}, {self.minibatches}")

    @property
    def updates(self) -> int:
        """Updates a round."""
        return self.epochs * self.minibatches


def with_responses(batch: Batch, sampled: Sampled) -> Batch:
    """The batch with sampled responses [b k t] in the place of the data's; every token of them counts."""
    changes: Any = {"response_tokens": sampled.tokens, "response_mask": sampled.mask, "scored": sampled.mask}
    return batch._replace(**changes, changed=None)
