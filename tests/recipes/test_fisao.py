"""FiSAO: what a token is worth reaches the objective, thresholds come first, every flag of the paper's."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.recipes.random_batches import batch_for
from tests.small_clip import small_clip
from tests.small_models import tiny_model
from vla_jax.data import Record
from vla_jax.data.batches import Experience
from vla_jax.data.world import CATEGORIES
from vla_jax.recipes import named
from vla_jax.recipes.rollouts import Policy
from vla_jax.rewards.entities import Entities, EntityTokens
from vla_jax.rewards.verifier import Verified, Verifier
from vla_jax.rollout import Sampled
from vla_jax.scoring import Scores
from vla_jax.training.assembly import assemble
from vla_jax.training.configuration import check, default_config
from vla_jax.training.tracking import read_metrics

# One response of three tokens: the first is praised, the second blamed, the third not rewarded.
WORTH = np.array([[[0.5, -1.0, 0.0]]], np.float32)
RATIOS = np.array([1.5, 1.5, 9.0])


def objective_of(divergences=None, **options):
    log_probs = jnp.log(jnp.array(RATIOS))[None, None]
    scores = Scores(
        policy_tokens=log_probs,
        reference_tokens=None,
        mask=jnp.ones((1, 1, 3), bool),
        divergences=divergences,
        experience=Experience(jnp.zeros((1, 1, 3)), WORTH),
    )
    return named("fisao", options).objective(scores)


def test_the_loss_is_a_sum_over_rewarded_tokens():
    made = objective_of()
    # -(min(1.5, 1.2) 0.5 + min(-1.5, -1.2)): what is praised and likelier is enough, what is blamed is not.
    assert float(made.losses[0]) == pytest.approx(-(1.2 * 0.5 - 1.5))
    assert float(made.denominators[0]) == 1
    assert float(made.metrics["clip_ratio/high_mean"][0]) == pytest.approx(1 / 2)


def test_the_clipping_may_be_the_papers():
    made = objective_of(paper_clip=True)
    assert float(made.losses[0]) == pytest.approx(-(1.2 * 0.5 - 1.2))


def test_the_divergence_may_be_that_of_each_update():
    made = objective_of(jnp.full((1, 1, 3), 0.5), fresh_divergences=True, divergence_weight=0.4)
    assert float(made.losses[0]) == pytest.approx(-(1.2 * (0.5 - 0.2) - 1.5 * (1.0 + 0.2)))
    assert named("fisao", {"fresh_divergences": True}).divergences


@pytest.mark.parametrize(
    "options, said", [({"baselines": "truth"}, "labels or scores"), ({"baseline_rounds": 0}, "at least 1")]
)
def test_settings_that_cannot_work_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        named("fisao", options)


def configured(**options):
    config = default_config()
    config.recipe = "fisao"
    config.verifier.model = "some folder"
    config.options.fisao.update(
        {"baselines": "scores", "baseline_rounds": 1, "margin": 0.0, "every_token": True, **options}
    )
    config.data.source = "world_preference"
    config.data.max_completion_length = 24
    config.lora.rank = 2
    config.train.steps, config.train.batch_size = 2, 4
    config.optimizer.warmup_ratio = 0.0
    config.optimizer.learning_rate = 1e-2
    return config


def test_a_verifier_is_needed():
    config = configured()
    check(config)
    config.verifier.model = ""
    with pytest.raises(ValueError, match="asks a verifier of words; set one of verifier.model"):
        check(config)


@pytest.mark.parametrize("template", ["nothing", "{x}", "{} {}", "a {0}", "{{}}"])
def test_a_template_has_one_place_for_the_word(template):
    config = configured()
    config.verifier.template = template
    with pytest.raises(ValueError, match="verifier.template is .*must hold {} once"):
        check(config)
    config.verifier.template = "a photo of a {}."
    check(config)


# A model that knows nothing spells no names, so the letters that it does write are made names.
NAMES = [*(category.name for category in CATEGORIES), *"abcdefghijklmnopqrstuvwxyz"]


def test_rounds_reward_words_by_the_thresholds_found_before_the_first(tmp_path):
    towers = small_clip()
    verifier = Verifier(towers.config, towers.params, towers.tokenizer, Entities.from_names(NAMES))
    model = tiny_model(vision={"image_size": 36})
    assemble(configured(), model, verifier=verifier).train(tmp_path / "rollout", "rounds")
    prepared = json.loads((tmp_path / "rollout" / "prepared.json").read_text())
    assert prepared["lowest"] <= prepared["hallucinated"] <= prepared["correct"] <= prepared["highest"]
    first, second = read_metrics(tmp_path / "rollout" / "metrics.jsonl")
    # The policy is the reference in the first round, and four updates away from it in the second.
    assert first["kl"] == pytest.approx(0, abs=1e-6) and second["kl"] > 1e-6
    assert 0 < first["rewards/share_of_tokens"] < 1
    assert first["rewards/praised"] > 0 and first["rewards/blamed"] > 0
    assert -first["loss"] != first["reward"]  # the loss is a mean over updates that moved the policy
    sample = read_metrics(tmp_path / "rollout" / "samples.jsonl")[0]
    assert set(sample) == {"step", "question", "response", "reward", "words"}


def test_the_ratio_may_be_to_the_reference():
    """A round whose model, verifier and divergence are given: eight tokens, the fifth a word of 80."""
    shape = (1, 1, 8)
    ones = jnp.ones(shape)
    entities = np.arange(8)[None, None] == 4
    word = (EntityTokens("cup", 4, 4), 80.0)
    policy = Policy(
        key=None,
        sample=lambda batch, count, temperature, key: Sampled(ones.astype(int), ones > 0, -ones),
        scores=lambda batch: Scores(-ones, -2 * ones, ones > 0),
        end_ids=(),
        texts=lambda tokens, mask: [["a cup"]],
        divergences=lambda batch: jnp.asarray(ones),
        records=lambda: [Record("", (), "What?", {})],
        reward=None,
        judge=None,
        verify=lambda batch, every_token: Verified(np.full(shape, 80.0), entities, [[[word]]]),
        prepared={"correct": 60.0, "hallucinated": 40.0, "lowest": 10.0, "highest": 90.0},
    )
    batch = jax.tree.map(jnp.asarray, batch_for(named("dpo"), rows=1))
    for to_reference, old in ((False, -ones), (True, -2 * ones)):
        rollout = named("fisao", {"ratio_to_reference": to_reference}).rollout
        made = rollout.collect(policy, batch)
        np.testing.assert_array_equal(made.batch.experience.log_probs, old)
        np.testing.assert_allclose(made.batch.experience.advantages, (0.5 - 0.2) * entities, rtol=1e-6)
        assert (made.batch.reference is not None) == to_reference
    assert made.metrics["rewards/share_of_tokens"] == 1 / 8 and made.metrics["rewards/praised"] == 1
    assert made.samples[0]["words"] == "cup 80.0 (+0.30)"
    fresh = named("fisao", {"fresh_divergences": True}).rollout.collect(policy, batch)
    np.testing.assert_allclose(fresh.batch.experience.advantages, 0.5 * entities, rtol=1e-6)
