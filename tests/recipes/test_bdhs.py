"""BDHS as a recipe: its losses by hand, and the round of a real small model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.recipes.random_batches import CONFIG, batch_for
from tests.small_models import tiny_model, tiny_tokenizer
from vla_jax.data import Record
from vla_jax.models import llava
from vla_jax.objectives import dpo
from vla_jax.recipes import Policy, named
from vla_jax.rewards import LexicalSimilarity
from vla_jax.rollout import Speaker
from vla_jax.scoring import Scores

TOKENIZER = tiny_tokenizer()
END = TOKENIZER.eos_token_id


def scores(*log_ratios):
    """Of responses of two tokens each; the reference is at -1 a token."""
    tokens = jnp.array(log_ratios)[None, :, None] / 2 - 1 + jnp.zeros((1, len(log_ratios), 2))
    return Scores(tokens, jnp.full(tokens.shape, -1.0), jnp.ones(tokens.shape, bool))


def test_two_pairs_weigh_as_gamma_says_and_one_pair_is_dpo():
    """Rewards 0.2, -0.1, -0.3 at beta 0.1: margins 0.3 of the data's pair and 0.5 of the corrupted one's."""
    text, made = np.log1p(np.exp(-0.3)), np.log1p(np.exp(-0.5))
    both = named("bdhs", {"gamma": 0.25}).objective(scores(2.0, -1.0, -3.0))
    assert float(both.losses[0]) == pytest.approx(0.25 * text + 0.75 * made, rel=1e-5)
    assert float(both.metrics["loss/text"][0]) == pytest.approx(text, rel=1e-5)
    alone = named("bdhs", {"data_pair": False}).objective(scores(2.0, -3.0))
    assert float(alone.losses[0]) == pytest.approx(float(dpo(jnp.array(0.2), jnp.array(-0.3))), rel=1e-5)


@pytest.mark.smoke
def test_a_round_appends_an_ended_answer_to_rows_that_count_and_says_how_it_was_made():
    model, options = tiny_model(), {"online": True, "threshold": 0.5, "tries": 1, "sentence_tokens": 3}
    recipe = named("bdhs", options)
    batch = batch_for(recipe)
    batch = batch._replace(
        response_tokens=batch.response_tokens[:, :2],
        response_mask=np.ones_like(batch.response_mask[:, :2]),
        scored=np.ones_like(batch.scored[:, :2]),
        weights=np.array([1, 0, 1], np.float32),
    )
    batch.response_tokens[:, :, -1] = END
    see = jax.jit(lambda images: llava.image_features(model.params, CONFIG, images / 255.0))
    policy = Policy(
        key=jax.random.key(0),
        sample=None,
        scores=None,
        end_ids=(END,),
        texts=None,
        divergences=None,
        records=lambda: [Record(f"r{i}", (), f"q{i}", {}) for i in range(3)],
        reward=None,
        judge=None,
        verify=None,
        prepared={},
        speaker=Speaker(
            CONFIG, model.params, None, TOKENIZER, (END,), lambda batch: see(jnp.asarray(batch.images))
        ),
        similarity=LexicalSimilarity(),
    )
    made, metrics, samples, provenance = recipe.rollout.collect(policy, batch)
    np.testing.assert_array_equal(made.response_tokens[:, :2], batch.response_tokens)
    assert made.response_tokens.shape[1] == 3 and not made.response_mask[1, 2].any()
    for row in (0, 2):
        ids = made.response_tokens[row, 2][made.response_mask[row, 2]]
        (start, kept, exchanged), *_ = provenance[row]["cuts"]
        assert start == 0 and not exchanged
        np.testing.assert_array_equal(ids[:kept], batch.response_tokens[row, 0, :kept])
        assert ids[-1] == END or len(ids) == made.response_tokens.shape[2]
        np.testing.assert_array_equal(made.scored[row, 2], made.response_mask[row, 2])
        assert provenance[row]["image_tokens"] == CONFIG.num_image_tokens
    assert provenance[1] == {} and [sample["question"] for sample in samples] == ["q0", "q2"]
    assert metrics["corrupted/tries"] == 1 and metrics["corrupted/unguided"] == 0
    again = recipe.rollout.collect(policy, batch)
    np.testing.assert_array_equal(again.batch.response_tokens, made.response_tokens)
