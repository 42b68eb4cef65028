"""Rounds of the methods that sample, with answers, scores and rewards given by hand."""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.recipes.random_batches import batch_for
from vla_jax.data import Record
from vla_jax.objectives import dpo
from vla_jax.recipes import Policy, named
from vla_jax.rewards import Verdict
from vla_jax.rollout import Sampled
from vla_jax.scoring import Scores

END = 2


@dataclass
class Judge:
    """Prefers the answer that comes later in the alphabet; keeps what it was asked."""

    asked: list = field(default_factory=list)
    spent = {"judge_cost": 0.5}

    def __call__(self, comparisons):
        self.asked += comparisons
        sides = [(c.second > c.first) if c.first != c.second else None for c in comparisons]
        return [Verdict(None if side is None else int(side), reply="because") for side in sides]


@dataclass(frozen=True)
class Picture:
    """An image as a record has it."""

    def pixels(self):
        return np.zeros((2, 2, 3), np.uint8)


def policy_that(answers, log_probs=-1.0, reference=-1.0, values=None, rewards=None, judge=None, **prepared):
    """A policy that gives these answers [row][answer] of token ids, whatever it is asked."""
    length = max(len(answer) for row in answers for answer in row)
    tokens = np.array([[a + [0] * (length - len(a)) for a in row] for row in answers], np.int32)
    mask = np.arange(length) < np.array([[[len(a)] for a in row] for row in answers])

    def scores(batch):
        there = jnp.asarray(batch.response_mask)
        of_tokens = [jnp.where(there, jnp.full(there.shape, x), 0.0) for x in (log_probs, reference)]
        said = None if values is None else jnp.where(there, jnp.full(there.shape, values), 0.0)
        return Scores(*of_tokens, jnp.asarray(batch.scored), values=said)

    return Policy(
        key=jax.random.key(0),
        sample=lambda batch, count, temperature, key: Sampled(
            jnp.asarray(tokens), jnp.asarray(mask), jnp.zeros(mask.shape)
        ),
        scores=scores,
        end_ids=(END,),
        texts=lambda ids, kept: [
            [" ".join(map(str, answer[there].tolist())) for answer, there in zip(*row, strict=True)]
            for row in zip(ids, kept, strict=True)
        ],
        records=lambda: [Record(f"r{i}", (Picture(),), f"q{i}", {}) for i in range(len(tokens))],
        reward=None if rewards is None else lambda batch: np.array(rewards, np.float32),
        judge=judge,
        divergences=lambda batch: jnp.zeros(batch.response_mask.shape),
        verify=None,
        prepared=prepared,
    )


def collected(name, policy, options=None, rows=None, weights=None):
    recipe = named(name, options)
    batch = batch_for(recipe, rows or len(policy.records()))._replace(experience=None)
    if weights is not None:
        batch = batch._replace(weights=np.array(weights, np.float32))
    return recipe, recipe.rollout.collect(policy, batch)


def scored(batch, log_probs, **more):
    """What the first update of a round reads."""
    return Scores(
        jnp.where(batch.response_mask, log_probs, 0.0),
        jnp.asarray(batch.reference.tokens),
        jnp.asarray(batch.scored),
        experience=jax.tree.map(jnp.asarray, batch.experience),
        **more,
    )


# --- rewards of several answers ------------------------------------------------------------------------

FOUR = [[[5, END], [5, 6, END], [7, END], [7, 8, 9]], [[4, END]] * 4]
REWARDS = [[1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 5.0, 5.0]]
MEASURED = {"reward_mean": 1.0, "reward_std": 2.0}


@pytest.mark.smoke
def test_advantages_of_four_answers_by_hand():
    """The policy holds every token half a nat likelier than the reference; beta 0.4, rewards (r - 1) / 2.

    Divergence 1, 1.5, 1, 1.5; earned 0 - .4, .5 - .6, 1 - .4, 2.5 - .6 = -.4, -.1, .6, 1.9; sum 2. Less the
    mean of the others: -.4 - .8, -.1 - .7, .6 - 1.4 / 3, 1.9 - .1 / 3.
    """
    policy = policy_that(FOUR, -1.0, -1.5, rewards=REWARDS, **MEASURED)
    recipe, (batch, metrics, samples, _) = collected("rloo", policy)
    advantages = batch.experience.advantages
    np.testing.assert_allclose(advantages[0, :, 0], [-1.2, -0.8, 0.4 / 3, 5.6 / 3], rtol=1e-5)
    # Every token of an answer has it, and padding none.
    np.testing.assert_allclose(advantages[0, 3], [5.6 / 3] * 3, rtol=1e-5)
    assert not advantages[0, 0, 2:].any() and np.abs(advantages[1]).max() < 1e-6
    assert metrics["reward"] == pytest.approx(4.0) and metrics["frac_reward_zero_std"] == 0.5
    assert metrics["kl"] == pytest.approx(0.5) and metrics["objective/kl"] == pytest.approx(0.5 * 18 / 8)
    assert metrics["completions/mean_length"] == 18 / 8 and metrics["completions/clipped_ratio"] == 1 / 8
    assert metrics["completions/sameness"] == 0.5 and metrics["objective/entropy"] == 18 / 8
    assert [sample["question"] for sample in samples] == ["q0"] * 4 + ["q1"] * 4
    assert samples[3]["response"] == "7 8 9" and samples[3]["reward"] == 6


def test_the_first_update_stands_at_the_rollout_policy():
    policy = policy_that(FOUR, -1.0, -1.5, rewards=REWARDS, **MEASURED)
    recipe, (batch, *_) = collected("rloo", policy)

    def loss(log_probs):
        made = recipe.objective(scored(batch, log_probs))
        return made.losses.sum() / made.denominators.sum(), made

    (value, made), slopes = jax.value_and_grad(loss, has_aux=True)(jnp.full(batch.scored.shape, -1.0))
    # Ratio 1: the loss is minus the mean advantage, which is 0, and a token's slope minus its advantage.
    assert float(value) == pytest.approx(0, abs=1e-6)
    assert made.denominators.tolist() == [4, 4] and not any(m.any() for m in made.metrics.values())
    np.testing.assert_allclose(slopes, -batch.experience.advantages / 8, rtol=1e-5, atol=1e-7)


def test_an_answer_is_clipped_as_a_whole():
    policy = policy_that(FOUR, -1.0, -1.5, rewards=REWARDS, **MEASURED)
    recipe, (batch, *_) = collected("rloo", policy)
    # Every token gains 0.1: answers of two tokens stay within the clip (e^0.2 < 1.25), those of three do not.
    options = named("rloo", {"clip_high": 0.25})
    made = options.objective(scored(batch, -0.9))
    np.testing.assert_allclose(made.metrics["clip_ratio"], [1 / 4, 0])
    expected = -(np.exp(0.2) * -1.2 + np.exp(0.3) * -0.8 + np.exp(0.2) * 0.4 / 3 + 1.25 * 5.6 / 3)
    assert float(made.losses[0]) == pytest.approx(expected, rel=1e-5)


def test_the_scale_of_rewards_is_measured_on_the_first_batches_and_rows_that_count():
    policy = policy_that(FOUR, rewards=REWARDS)
    recipe = named("rloo", {"measured_batches": 2, "missing_eos_penalty": 8.0})
    batch = batch_for(recipe, 2)._replace(weights=np.array([1, 0], np.float32))
    found = recipe.rollout.prepare(policy, (batch for _ in range(10**9)))
    # The fourth answer was cut: 6 - 8.
    rewards = np.array([1, 2, 3, -2])
    assert found == pytest.approx({"reward_mean": rewards.mean(), "reward_std": rewards.std()})
    unscaled = named("rloo", {"measured_batches": 0}).rollout.prepare(policy, ())
    assert unscaled == {"reward_mean": 0, "reward_std": 1}


# --- rewards of tokens, and values ---------------------------------------------------------------------

ONE = [[[5, 6, END]], [[7, 8, 9]]]


@pytest.mark.smoke
def test_token_rewards_advantages_and_returns_by_hand():
    """gamma = lambda = 1: what is to come. Half a nat a token at beta 0.2 costs 0.1; 4 was expected."""
    options = {"beta": 0.2, "whiten_advantages": False, "missing_eos_penalty": 3.0}
    policy = policy_that(ONE, -1.0, -1.5, values=4.0, rewards=[[10.0], [2.0]])
    _, (batch, metrics, *_) = collected("ppo", policy, options)
    returns = np.array([[9.7, 9.8, 9.9], [-1.3, -1.2, -1.1]])  # the second answer was cut: 2 - 3
    np.testing.assert_allclose(batch.experience.returns[:, 0], returns, rtol=1e-5)
    np.testing.assert_allclose(batch.experience.advantages[:, 0], returns - 4, rtol=1e-5)
    np.testing.assert_allclose(batch.experience.values[:, 0], np.full((2, 3), 4.0))
    assert metrics["reward"] == pytest.approx(4.5) and metrics["completions/clipped_ratio"] == 0.5


def test_whitened_advantages_have_mean_0_and_variance_1_over_rows_that_count():
    policy = policy_that(ONE, -1.0, -1.5, values=4.0, rewards=[[10.0], [2.0]])
    _, (batch, *_) = collected("ppo", policy, weights=[1, 1])
    assert batch.experience.advantages.mean() == pytest.approx(0, abs=1e-6)
    assert batch.experience.advantages.std(ddof=1) == pytest.approx(1, rel=1e-5)
    _, (alone, *_) = collected("ppo", policy, weights=[1, 0])
    assert alone.experience.advantages[0].mean() == pytest.approx(0, abs=1e-6)
    assert not alone.experience.advantages[1].any()


def test_the_first_updates_loss_is_that_of_the_values():
    policy = policy_that(ONE, -1.0, -1.5, values=4.0, rewards=[[10.0], [2.0]])
    recipe, (batch, *_) = collected("ppo", policy)
    made = recipe.objective(scored(batch, -1.0, values=jnp.full(batch.scored.shape, 4.0)))
    errors = np.square(batch.experience.returns - 4).mean() / 2
    assert float(made.losses.sum() / made.denominators.sum()) == pytest.approx(0.1 * errors, rel=1e-5)
    assert made.denominators.tolist() == [3, 3] and not made.metrics["clip_ratio"].any()
    assert float(made.metrics["loss/value"].mean()) == pytest.approx(errors, rel=1e-5)


# --- pairs that a judge orders -------------------------------------------------------------------------

PAIRS = [[[5, END], [6, END]], [[8, END], [7, END]], [[4, END], [4, END]], [[9, 9], [3, END]]]


@pytest.mark.smoke
def test_the_judges_choice_comes_first_and_a_tie_counts_for_nothing():
    judge = Judge()
    recipe, (batch, metrics, samples, _) = collected("online_dpo", policy_that(PAIRS, judge=judge))
    np.testing.assert_array_equal(batch.response_tokens[:, :, 0], [[6, 5], [8, 7], [4, 4], [9, 3]])
    np.testing.assert_array_equal(batch.weights, [1, 1, 0, 1])
    assert metrics["judge_ties"] == 0.25 and metrics["judge_cost"] == 0.5
    assert [(c.question, c.first) for c in judge.asked][:2] == [("q0", "5 2"), ("q1", "8 2")]
    assert samples[0]["response"] == "6 2" and samples[0]["judge"] == "because"
    losses = recipe.objective(scored(batch, -1.0)).losses
    np.testing.assert_allclose(losses, np.log(2), rtol=1e-6)
    # A nat a token for the preferred answers of two tokens, nothing for the others.
    rise = jnp.array([1.0, 0.0])[None, :, None]
    moved = recipe.objective(scored(batch, -1.0 + rise)).losses
    np.testing.assert_allclose(moved, dpo(jnp.full(4, 0.2), jnp.zeros(4)), rtol=1e-5)


def test_an_answer_that_was_cut_loses_where_that_is_asked_for():
    _, (batch, *_) = collected("online_dpo", policy_that(PAIRS, judge=Judge()), {"cut_loses": True})
    assert batch.response_tokens[3, :, 0].tolist() == [3, 9]


def test_the_reward_model_can_be_the_judge_and_rows_of_weight_0_are_not_judged():
    rewards = [[1.0, 2.0], [2.0, 1.0], [0.0, 0.0], [0.0, 4.0]]
    policy = policy_that(PAIRS, rewards=rewards)
    _, (batch, metrics, samples, _) = collected("online_dpo", policy, weights=[1, 1, 1, 0])
    np.testing.assert_array_equal(batch.response_tokens[:, 0, 0], [6, 8, 4, 9])
    np.testing.assert_array_equal(batch.weights, [1, 1, 0, 0])
    assert metrics["judge_ties"] == pytest.approx(1 / 3) and samples[0]["judge"] == "1 against 2"


def test_a_reward_that_is_not_finite_prefers_neither():
    rewards = [[np.nan, 2.0], [2.0, np.nan], [np.inf, 0.0], [0.0, 4.0]]
    _, (batch, metrics, *_) = collected("online_dpo", policy_that(PAIRS, rewards=rewards))
    np.testing.assert_array_equal(batch.weights, [0, 0, 0, 1])
    assert metrics["judge_ties"] == 0


@pytest.mark.parametrize("probability, taken", [(1.0, "data"), (0.0, "sampled"), (0.5, "both")])
def test_a_coin_takes_the_pair_of_the_data_or_the_sampled_one(probability, taken):
    judge, options = Judge(), {"probability": probability}
    recipe = named("mixed_dpo", options)
    data = batch_for(recipe, 8)
    _, (batch, metrics, *_) = collected("mixed_dpo", policy_that(2 * PAIRS, judge=judge), options)
    kept = np.array(
        [np.array_equal(*pair) for pair in zip(batch.response_tokens, data.response_tokens, strict=True)]
    )
    assert batch.response_tokens.shape == (8, 2, 5)  # the longer of both
    np.testing.assert_array_equal(batch.response_mask[kept], data.response_mask[kept])
    assert metrics["offline"] == kept.mean()
    assert {"data": kept.all(), "sampled": not kept.any(), "both": 0 < kept.sum() < 8}[taken]
    # Only what counts is asked about; a sampled tie counts for nothing.
    assert [c.question for c in judge.asked] == [f"q{row}" for row in np.flatnonzero(~kept)]
    np.testing.assert_array_equal(batch.weights, np.where(kept | (np.arange(8) % 4 != 2), 1, 0))
    again = collected("mixed_dpo", policy_that(2 * PAIRS, judge=Judge()), options)[1]
    np.testing.assert_array_equal(again.batch.response_tokens, batch.response_tokens)


# --- the best of several answers -----------------------------------------------------------------------


def rated_by_sum(answers):
    """A reward model that says the sum of an answer's ids, and is asked as many as a recipe scores."""
    asked = []

    def reward(batch):
        asked.append(batch.response_tokens.shape[1])
        return np.where(batch.response_mask, batch.response_tokens, 0).sum(axis=2).astype(np.float32)

    return replace(policy_that(answers), reward=reward), asked


def test_the_best_is_learnt_from_against_the_worst_and_answers_rated_alike_count_for_nothing():
    policy, asked = rated_by_sum(FOUR)
    recipe, found = collected("best_of_n", policy)
    batch = found.batch
    # Rated 7, 13, 9, 24, and 6 each.
    np.testing.assert_array_equal(batch.response_tokens[0], [[7, 8, 9], [5, END, 0]])
    np.testing.assert_array_equal(batch.scored, batch.response_mask)
    np.testing.assert_array_equal(batch.weights, [1, 0])
    assert asked == [2, 2] and found.provenance[0] == {"rewards": [7, 13, 9, 24]}
    assert found.metrics["reward"] == pytest.approx((53 + 24) / 8)
    there = jnp.where(batch.response_mask, 1.0, 0.0)
    rise = Scores(-0.5 * there, -1.0 * there, jnp.asarray(batch.scored))
    losses = recipe.objective(rise).losses
    assert float(losses[0]) == pytest.approx(float(dpo(jnp.array(0.15), jnp.array(0.1))), rel=1e-5)


def test_the_best_alone_is_learnt_as_supervised():
    policy, asked = rated_by_sum(FOUR)
    recipe, found = collected("best_of_n", policy, {"pair": False})
    np.testing.assert_array_equal(found.batch.response_tokens[0], [[7, 8, 9]])
    np.testing.assert_array_equal(found.batch.weights, [1, 1])
    assert asked == [1] * 4 and not recipe.needs_reference
    made = recipe.objective(Scores(jnp.full((2, 1, 3), -2.0), None, jnp.asarray(found.batch.scored)))
    assert float(made.losses[0] / made.denominators[0]) == pytest.approx(2.0)


@pytest.mark.parametrize("pair", [True, False])
def test_answers_of_which_one_has_no_finite_reward_count_for_nothing(pair):
    policy, _ = rated_by_sum(FOUR)
    rated = policy.reward
    odd = replace(policy, reward=lambda batch: np.where(rated(batch) == 9, np.nan, rated(batch)))
    np.testing.assert_array_equal(collected("best_of_n", odd, {"pair": pair})[1].batch.weights, [0, not pair])


def test_a_pair_takes_an_even_number_of_answers():
    with pytest.raises(ValueError, match="samples is 3; of a pair it is even"):
        named("best_of_n", {"samples": 3})
