"""Our losses and their gradients against what TRL's trainers compute, in float64.

A trainer of TRL mixes its loss with its model's forward pass. Here it is made without its constructor and
given only what its loss method reads; its model returns random log-probabilities, or scores, as they are.
"""

from collections import defaultdict
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with TRL, which runs on torch")
pytest.importorskip("trl", reason="compares with TRL: pip install 'vla_jax[trl]'")
from accelerate import Accelerator  # noqa: E402
from trl.trainer.dpo_trainer import DPOTrainer  # noqa: E402
from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: E402
from trl.trainer.reward_trainer import RewardTrainer  # noqa: E402
from trl.trainer.rloo_trainer import RLOOTrainer  # noqa: E402

from vla_jax.objectives import (  # noqa: E402
    bradley_terry,
    clipped_policy_loss,
    clipped_tokens,
    dpo,
    hinge,
    ipo,
    kl_estimate,
    leave_one_out,
    negative_log_likelihood,
    weighted_log_probs,
)

pytestmark = pytest.mark.parity

PAIRS, PROMPT, TOKENS = 4, 3, 7
# Of the chosen responses, then of the rejected ones.
LENGTHS = np.array([7, 2, 5, 1, 4, 7, 5, 3])
MASK = np.arange(TOKENS) < LENGTHS[:, None]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def drawn(seed, rows, scale=1.0):
    """Log-probabilities, 0 where a token does not count, as the heads that TRL patches return them."""
    return np.where(MASK[:rows], -np.random.default_rng(seed).gamma(2, scale, (rows, TOKENS)), 0)


def bare(trainer_class, **attributes):
    """A trainer that has these attributes and nothing else."""
    trainer = object.__new__(trainer_class)
    trainer.__dict__.update(
        accelerator=Accelerator(cpu=True),
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        **attributes,
    )
    return trainer


def head(log_probs):
    """A model whose patched head returns these log-probabilities of a response, at its labelled tokens."""
    padded = torch.nn.functional.pad(log_probs, (PROMPT, 0))
    zeros = torch.zeros_like(padded)

    def model(labels, **inputs):
        labelled = torch.where(labels == -100, zeros, padded)
        return SimpleNamespace(log_probs=labelled, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())

    return model


def theirs(trainer, inputs, values, model_of=head):
    """The loss of a trainer whose model returns `values`, and its gradient with respect to them."""
    leaf = torch.tensor(values, requires_grad=True)
    loss = trainer.compute_loss(model_of(leaf), inputs)
    loss.backward()
    assert loss.dtype == torch.float64
    return loss.item(), leaf.grad.numpy()


def compare(ours, values, expected):
    loss, slopes = jax.jit(jax.value_and_grad(ours))(jnp.array(values))
    assert loss.dtype == jnp.float64
    np.testing.assert_allclose(loss, expected[0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(slopes, expected[1], rtol=1e-6, atol=1e-9)
    assert np.abs(expected[1]).max() > 1e-4


# --- pairs -------------------------------------------------------------------------------------------


def pair_trainer(loss_type, beta, label_smoothing=0.0, ld_alpha=None):
    return bare(
        DPOTrainer,
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=label_smoothing,
        ld_alpha=ld_alpha,
        f_divergence_type="reverse_kl",
        precompute_ref_logps=True,
        use_weighting=False,
    )


def pair_inputs(reference, mask=MASK):
    """A batch of TRL: chosen rows, then rejected rows, the prompt's tokens before every response."""
    completion = np.concatenate([np.zeros((len(mask), PROMPT), bool), mask], axis=1)
    chosen, rejected = torch.tensor(reference.sum(1)).chunk(2)
    return {
        "input_ids": torch.zeros(completion.shape, dtype=torch.long),
        "attention_mask": torch.ones(completion.shape, dtype=torch.long),
        "completion_mask": torch.tensor(completion, dtype=torch.long),
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }


LOSSES = {
    "sigmoid": lambda log_ratios, lengths, beta: dpo(*beta * log_ratios),
    "hinge": lambda log_ratios, lengths, beta: hinge(*beta * log_ratios),
    "ipo": lambda log_ratios, lengths, beta: ipo(*log_ratios / lengths, beta),
}


@pytest.mark.parametrize("beta", [0.1, 0.8])
@pytest.mark.parametrize("loss_type", LOSSES)
def test_losses_on_pairs(loss_type, beta):
    values, reference = drawn(0, 2 * PAIRS, 3.0), drawn(1, 2 * PAIRS, 3.0)
    expected = theirs(pair_trainer(loss_type, beta), pair_inputs(reference), values)

    def ours(log_probs):
        log_ratios = jnp.where(MASK, log_probs - reference, 0).sum(1).reshape(2, PAIRS)
        return LOSSES[loss_type](log_ratios, LENGTHS.reshape(2, PAIRS), beta).mean()

    compare(ours, values, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_label_smoothing(smoothing):
    """TRL smooths labels in its losses on sorted batches; a batch of one pair has nothing to sort."""
    trainer = pair_trainer("aot", 0.3, label_smoothing=smoothing)
    for pair in range(PAIRS):
        rows = [pair, pair + PAIRS]
        values, reference = drawn(2, 2 * PAIRS)[rows], drawn(3, 2 * PAIRS)[rows]
        expected = theirs(trainer, pair_inputs(reference, MASK[rows]), values)

        def ours(log_probs, rows=rows, reference=reference):
            rewards = 0.3 * jnp.where(MASK[rows], log_probs - reference, 0).sum(1)
            return dpo(rewards[0], rewards[1], smoothing)

        compare(ours, values, expected)


def test_weighted_sums_of_log_probabilities():
    """TRL's length-desensitised loss weighs the tokens past the shorter response's end."""
    values, reference = drawn(4, 2 * PAIRS), drawn(5, 2 * PAIRS)
    shared = np.tile(LENGTHS.reshape(2, PAIRS).min(0), 2)
    tail = jnp.array(MASK & (np.arange(TOKENS) >= shared[:, None]))
    inputs = pair_inputs(np.where(tail, 0.4, 1.0) * reference)
    expected = theirs(pair_trainer("sigmoid", 0.2, ld_alpha=0.4), inputs, values)

    def ours(log_probs):
        policy, constant = (
            weighted_log_probs(side, jnp.array(MASK), tail, 0.4, mean=False)
            for side in (log_probs, jnp.array(reference))
        )
        chosen, rejected = (0.2 * (policy - constant)).reshape(2, PAIRS)
        return dpo(chosen, rejected).mean()

    compare(ours, values, expected)


def test_the_supervised_loss_of_the_chosen_responses():
    values = drawn(6, 2 * PAIRS)
    expected = theirs(pair_trainer("sft", 0.1), pair_inputs(drawn(7, 2 * PAIRS)), values)

    def ours(log_probs):
        losses, tokens = negative_log_likelihood(log_probs[:PAIRS], MASK[:PAIRS])
        return losses.sum() / tokens.sum()

    compare(ours, values, expected)


# --- the reward model --------------------------------------------------------------------------------


@pytest.mark.parametrize("centering", [None, 0.01, 0.5])
@pytest.mark.parametrize("with_margin", [False, True])
def test_the_reward_models_loss(with_margin, centering):
    rng = np.random.default_rng(8)
    scores, margins = rng.normal(0, 3, 2 * PAIRS), rng.uniform(0, 2, PAIRS) * with_margin
    trainer = bare(RewardTrainer, args=SimpleNamespace(center_rewards_coefficient=centering))
    inputs = {"attention_mask": torch.ones(2 * PAIRS, TOKENS, dtype=torch.long)}
    if with_margin:
        inputs["margin"] = torch.tensor(margins)
    expected = theirs(
        trainer, inputs, scores, lambda leaf: lambda **_: SimpleNamespace(logits=leaf.unsqueeze(-1))
    )

    def ours(values):
        chosen, rejected = values.reshape(2, PAIRS)
        margin = jnp.array(margins) if with_margin else 0.0
        return bradley_terry(chosen, rejected, margin, centering or 0.0).mean()

    compare(ours, scores, expected)


# --- the clipped policy gradient ---------------------------------------------------------------------

ROWS = 6
# The last row counts no token at all.
COUNTED = np.where(np.arange(ROWS)[:, None] < ROWS - 1, MASK[:ROWS], False)


def policy_trainer(loss_type, clip_low, clip_high, beta=0.0):
    return bare(
        GRPOTrainer,
        loss_type=loss_type,
        epsilon_low=clip_low,
        epsilon_high=clip_high,
        beta=beta,
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        args=SimpleNamespace(delta=None, report_to=[], use_bias_correction_kl=False),
        state=SimpleNamespace(global_step=0),
    )


def policy_inputs(advantages, rollout):
    prompt = torch.zeros(ROWS, PROMPT, dtype=torch.long)
    return {
        "prompt_ids": prompt,
        "prompt_mask": prompt + 1,
        "completion_ids": torch.zeros(ROWS, TOKENS, dtype=torch.long),
        "completion_mask": torch.tensor(COUNTED, dtype=torch.long),
        "advantages": torch.tensor(advantages),
        "old_per_token_logps": None if rollout is None else torch.tensor(rollout),
    }


AVERAGES = {
    "bnpo": lambda losses, tokens: losses.sum() / tokens.sum(),
    "grpo": lambda losses, tokens: (losses / jnp.maximum(tokens, 1)).mean(),
}


@pytest.mark.parametrize("clip_low, clip_high", [(0.2, 0.2), (0.2, 0.5), (0.5, 0.1)])
@pytest.mark.parametrize("on_policy", [False, True])
@pytest.mark.parametrize("average", AVERAGES)
def test_the_clipped_policy_loss_on_token_advantages(average, on_policy, clip_low, clip_high):
    advantages = np.random.default_rng(9).normal(size=(ROWS, TOKENS))
    values = drawn(10, ROWS)
    rollout = values + np.random.default_rng(11).normal(0, 0.5, values.shape)
    trainer = policy_trainer(average, clip_low, clip_high)
    expected = theirs(trainer, policy_inputs(advantages, None if on_policy else rollout), values)

    def arguments(log_probs):
        sampled = log_probs if on_policy else jnp.array(rollout)
        return log_probs, sampled, jnp.array(advantages), jnp.array(COUNTED), clip_low, clip_high

    def ours(log_probs):
        return AVERAGES[average](*clipped_policy_loss(*arguments(log_probs)))

    compare(ours, values, expected)
    logged = trainer._metrics["train"]
    for side, counts in zip(("low", "high"), clipped_tokens(*arguments(jnp.array(values))), strict=True):
        assert float(counts.sum() / COUNTED.sum()) == pytest.approx(logged[f"clip_ratio/{side}_mean"][0])
    assert on_policy or logged["clip_ratio/region_mean"][0] > 0.1


def test_the_divergence_that_stays_in_a_loss():
    """TRL's loss of a policy that still is the rollout policy, with the third estimate added to it."""
    advantages = np.random.default_rng(12).normal(size=(ROWS, TOKENS))
    values, reference = drawn(13, ROWS), drawn(14, ROWS)
    inputs = policy_inputs(advantages, None) | {"ref_per_token_logps": torch.tensor(reference)}
    expected = theirs(policy_trainer("bnpo", 0.2, 0.2, beta=0.3), inputs, values)

    def ours(log_probs):
        losses, tokens = clipped_policy_loss(log_probs, log_probs, jnp.array(advantages), jnp.array(COUNTED))
        kl = jnp.where(COUNTED, kl_estimate(log_probs, jnp.array(reference), "k3"), 0).sum()
        return (losses.sum() + 0.3 * kl) / tokens.sum()

    compare(ours, values, expected)


# --- several answers to a prompt -------------------------------------------------------------------------

PROMPTS, ANSWERS = 3, 4


def groups_trainer(beta, rewards, sampled, reference, counted):
    """A trainer that is handed its answers, their log-probabilities under both models, and their rewards."""
    told = iter((sampled, reference))
    trainer = bare(
        RLOOTrainer,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        pad_to_multiple_of=None,
        mask_truncated_completions=False,
        args=SimpleNamespace(per_device_train_batch_size=len(rewards), gradient_checkpointing_kwargs=None),
        ref_model=object(),
        beta=beta,
        num_generations=ANSWERS,
        reward_weights=torch.ones(1, dtype=torch.float64),
        reward_clip_range=None,
        normalize_advantages=False,
        reward_func_names=["given"],
        _logs={
            "rewards": defaultdict(list),
            "extra": {},
            **{k: [] for k in ("prompt", "completion", "advantages")},
        },
        _pending_extra_logs={},
        _pending_metrics={},
    )
    trainer.model.is_gradient_checkpointing = False
    answers = [[1] * int(length) for length in counted.sum(1)]
    trainer._generate = lambda prompts: ([[1]] * len(prompts), answers, ["" for _ in prompts])
    trainer._calculate_rewards = lambda *unused: torch.tensor(rewards)[:, None]
    trainer._get_per_token_logps_and_entropies = lambda *unused, **more: (
        torch.tensor(next(told)),
        None,
        None,
    )
    return trainer


@pytest.mark.parametrize("missing", [(), (5,), (0, 1, 2)])
@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_advantages_of_several_answers(beta, missing):
    """The penalty is part of the reward; an answer without a reward, NaN there, is in nobody's mean."""
    rng, rows = np.random.default_rng(15), PROMPTS * ANSWERS
    counted = np.arange(TOKENS) < rng.permutation(np.resize(LENGTHS, rows))[:, None]
    rewards = rng.normal(size=rows)
    rewards[list(missing)] = np.nan
    sampled, reference = -rng.gamma(2, 1, (2, rows, TOKENS))
    trainer = groups_trainer(beta, rewards, sampled, reference, counted)
    expected = trainer._generate_and_score_completions([{"prompt": ""}] * rows)["advantages"]

    kl = jnp.where(counted, kl_estimate(jnp.array(sampled), jnp.array(reference), "k1"), 0).sum(-1)
    penalised = (jnp.array(rewards) - beta * kl).reshape(PROMPTS, ANSWERS)
    ours = leave_one_out(penalised, ~np.isnan(rewards).reshape(PROMPTS, ANSWERS))
    assert expected.dtype == torch.float64 and np.abs(expected.numpy()).max() > 0.1
    np.testing.assert_allclose(ours.ravel(), expected.numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("clip_low, clip_high", [(0.2, 0.2), (0.5, 0.1)])
def test_the_clipped_loss_of_whole_answers(clip_low, clip_high):
    advantages = np.random.default_rng(16).normal(size=ROWS)
    values = drawn(17, ROWS)
    rollout = values + np.random.default_rng(19).normal(0, 0.4, values.shape)
    trainer = bare(RLOOTrainer, epsilon_low=clip_low, epsilon_high=clip_high)
    sums = torch.tensor(np.where(COUNTED, rollout, 0).sum(1))
    inputs = policy_inputs(advantages, None) | {"old_logps": sums}

    def model_of(leaf):
        trainer._get_per_token_logps_and_entropies = lambda *unused, **more: (
            leaf,
            torch.zeros_like(leaf),
            None,
        )
        return trainer.model

    expected = theirs(trainer, inputs, values, model_of)

    def arguments(log_probs):
        whole = jnp.where(COUNTED, jnp.stack([log_probs, jnp.array(rollout)]), 0).sum(-1, keepdims=True)
        return *whole, jnp.array(advantages)[:, None], jnp.ones((ROWS, 1), bool), clip_low, clip_high

    def ours(log_probs):
        return clipped_policy_loss(*arguments(log_probs))[0].mean()

    compare(ours, values, expected)
    logged = trainer._metrics["train"]
    for side, counts in zip(("low", "high"), clipped_tokens(*arguments(jnp.array(values))), strict=True):
        assert float(counts.mean()) == pytest.approx(logged[f"clip_ratio/{side}_mean"][0])
    assert logged["clip_ratio/region_mean"][0] > 0.1
