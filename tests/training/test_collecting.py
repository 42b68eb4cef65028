"""Rounds: what is sampled, rewarded and learnt from, several updates a step, and runs that go on."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_models import tiny_model
from vla_jax.data.batches import Experience, Kept
from vla_jax.models import llava, parameters
from vla_jax.objectives import clipped_policy_loss, leave_one_out
from vla_jax.recipes import Collected, Objective, Recipe, Rollout, named, recipe
from vla_jax.recipes.rollouts import with_responses
from vla_jax.scoring import Candidate
from vla_jax.training import assembly
from vla_jax.training.alarms import Collapsed
from vla_jax.training.assembly import assemble
from vla_jax.training.configuration import default_config
from vla_jax.training.run import Run
from vla_jax.training.step import _orders
from vla_jax.training.tracking import read_metrics

MODEL = tiny_model(vision={"image_size": 36})
WANTED = MODEL.tokenizer.convert_tokens_to_ids("a")


def shortest_answers(epochs=1, minibatches=1, rewards=False, values=False):
    """Four answers a prompt; what counts is how often they say one word, or what a reward model says."""

    def collect(policy, batch):
        sampled = policy.sample(batch, 4, 1.0, policy.key)
        batch = with_responses(batch, sampled)
        said = (np.asarray(sampled.tokens) == WANTED).sum(axis=2).astype(np.float32)
        worth = policy.reward(batch) if rewards else said
        scores = policy.scores(batch)
        advantages = jnp.broadcast_to(
            leave_one_out(jnp.asarray(worth))[..., None], scores.policy_tokens.shape
        )
        experience = Experience(scores.policy_tokens, advantages, None, scores.values)
        made = np.zeros((*sampled.tokens.shape[:1], 0, sampled.tokens.shape[2]), np.int32)
        batch = batch._replace(experience=experience, reference=Kept(scores.reference_tokens, made))
        words = policy.texts(sampled.tokens, sampled.mask)
        return Collected(batch, {"reward": float(np.mean(worth))}, [{"response": words[0][0]}])

    def objective(scores):
        before = scores.experience
        losses, tokens = clipped_policy_loss(
            scores.policy_tokens, before.log_probs, before.advantages, scores.mask
        )
        drift = jnp.abs(scores.policy_tokens - before.log_probs).max(axis=(1, 2))
        return Objective(losses.sum(axis=1), tokens.sum(axis=1), {"drift": drift})

    return Recipe(
        responses=(),
        view_names=("image",),
        make_views=recipe.original,
        candidates=tuple(Candidate(0, response) for response in range(4)),
        objective=objective,
        values=values,
        rollout=Rollout(collect, epochs=epochs, minibatches=minibatches, rewards=rewards),
    )


def configured(**changes):
    config = default_config()
    config.data.source = "world_preference"
    config.data.max_completion_length = 6
    config.lora.rank = 2
    config.train.steps = 2
    config.train.batch_size = 4
    config.optimizer.warmup_ratio = 0.0
    config.optimizer.schedule = "constant"
    config.optimizer.learning_rate = 1e-2
    config.update_from_flattened_dict(changes)
    return config


def assembled(monkeypatch, method: Recipe, reward_model=None, **changes) -> Run:
    monkeypatch.setattr(assembly, "recipe_of", lambda config: method)
    return assemble(configured(**changes), MODEL, reward_model=reward_model)


def reward_model():
    config = replace(MODEL.config, reward_head=True)
    drawn = parameters.initialise({"reward": llava.table(config)["reward"]}, jax.random.key(3))
    return replace(MODEL, config=config, params={**MODEL.params, **drawn})


def test_what_is_rewarded_is_said_more_often_and_every_round_asks_the_policy_of_its_step(
    monkeypatch, tmp_path
):
    changes = {"train.steps": 25, "optimizer.learning_rate": 5e-2}
    assembled(monkeypatch, shortest_answers(), **changes).train(tmp_path, "rounds")
    rows = read_metrics(tmp_path / "metrics.jsonl")
    rewards = [row["reward"] for row in rows]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 1
    # The first update of a round finds the very policy that sampled.
    assert {row["drift"] for row in rows} == {0}
    samples = read_metrics(tmp_path / "samples.jsonl")
    assert [sample["step"] for sample in samples] == list(range(1, 26))
    assert all(isinstance(sample["response"], str) for sample in samples)


def test_rounds_of_several_updates_that_are_interrupted_end_in_the_same_bits(monkeypatch, tmp_path):
    method = shortest_answers(epochs=2, minibatches=2, rewards=True, values=True)

    def trained(workdir, steps):
        run = assembled(monkeypatch, method, reward_model(), **{"train.steps": steps})
        return run.train(workdir, "rounds")

    whole = trained(tmp_path / "whole", 3)
    trained(tmp_path / "parts", 1)
    parts = trained(tmp_path / "parts", 3)
    assert all(map(np.array_equal, jax.tree.leaves(whole.adapter), jax.tree.leaves(parts.adapter)))
    rows, others = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts"))
    for name in ("loss", "reward", "drift", "num_tokens"):
        assert [row[name] for row in rows] == [row[name] for row in others]
    # The later updates of a round find a policy that the first one moved.
    assert all(row["drift"] > 0 for row in rows)
    # The value head was for training only.
    assert "value" not in whole.params and not whole.config.value_head


def test_what_a_method_finds_out_beforehand_is_kept_and_a_policy_that_has_collapsed_stops_the_run(
    monkeypatch, tmp_path
):
    method = named("rloo", {"measured_batches": 1})

    def trained(steps, **alarms):
        changes = {f"alarms.{name}": value for name, value in {"window": 1, **alarms}.items()}
        run = assembled(monkeypatch, method, reward_model(), **{"train.steps": steps, **changes})
        return run.train(tmp_path, "rounds")

    trained(1)
    measured = tmp_path / "prepared.json"
    before = measured.stat().st_mtime_ns
    assert json.loads(measured.read_text())["reward_std"] > 0
    with pytest.raises(Collapsed, match="completions/sameness is .* step 2; the last checkpoint .* step 1"):
        trained(3, action="stop", sameness=1e-3)
    assert measured.stat().st_mtime_ns == before
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]


def test_every_pass_reads_every_row_once_in_an_order_of_its_own():
    orders = _orders(Rollout(lambda policy, batch: None, epochs=3, minibatches=2), 8, 0, jnp.int32(5))
    passes = np.asarray(orders).reshape(3, 8)
    assert (np.sort(passes, axis=1) == np.arange(8)).all()
    assert len({tuple(row) for row in passes.tolist()}) == 3
    again = _orders(Rollout(lambda policy, batch: None, epochs=3, minibatches=2), 8, 0, jnp.int32(5))
    assert np.array_equal(orders, again)


def test_a_value_head_begins_as_the_reward_head(monkeypatch):
    judged = reward_model()
    run = assembled(monkeypatch, shortest_answers(rewards=True, values=True), judged)
    head = run.model.params["value"]
    assert np.array_equal(head["score"], judged.params["reward"]["score"]) and not head["bias"].any()
    alone = assembled(monkeypatch, shortest_answers(values=True))
    assert not alone.model.params["value"]["score"].any()


@pytest.mark.parametrize(
    ("judged", "said"),
    [
        (None, "rewards.model"),
        (MODEL, "has no reward head"),
        (replace(reward_model(), processor=tiny_model().processor), "prepares images otherwise"),
    ],
    ids=["none", "no head", "other images"],
)
def test_a_reward_model_that_cannot_judge_is_refused(monkeypatch, judged, said):
    with pytest.raises(ValueError, match=said):
        assembled(monkeypatch, shortest_answers(rewards=True), judged)
