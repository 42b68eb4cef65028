"""POVID's noised image, and the answer that the model which training starts from makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.recipes.random_batches import CONFIG, batch_for
from tests.small_models import tiny_model
from vla_jax.models import llava, lora
from vla_jax.models.lora import LoraConfig
from vla_jax.recipes import named
from vla_jax.scoring import encode_views, token_log_probs
from vla_jax.training.step import Method, Trained, make_views

views_of = jax.jit(make_views, static_argnums=(0, 2))


def noised(level, **options):
    """The noised view, in float64, of three images of this one level."""
    recipe = named("povid", options)
    batch = batch_for(recipe)
    batch = batch._replace(images=np.full_like(batch.images, level))
    return np.asarray(views_of(recipe, batch, 0))[:, 1].astype(float)


@pytest.mark.parametrize("step", [1, 50, 200])
def test_the_image_is_noised_by_as_many_steps_as_asked(step):
    """Mid-grey, of which hardly anything is clipped: its mean shrinks by the root of what is left of it."""
    made = noised(128, noise_step=step)
    betas = (0.5e-2 - 1e-5) / (1 + np.exp(6 - 12 * np.arange(1, step + 1) / 1000)) + 1e-5
    left = np.prod(1 - betas)
    # Rounding to whole levels adds a twelfth.
    deviation = np.sqrt(255**2 * (1 - left) + 1 / 12)
    assert made.std() == pytest.approx(deviation, rel=0.05)
    assert made.mean() == pytest.approx(128 * np.sqrt(left), abs=4 * deviation / np.sqrt(made.size))


def test_bytes_out_of_range_wrap_where_asked_as_in_the_released_code():
    """Noise takes half of black below 0: clipped that is black, wrapped a little below 0 is almost white."""
    clipped, wrapped = (noised(0, reference_compatible=asked) for asked in (False, True))
    assert 0.45 < (clipped == 0).mean() < 0.55 and (wrapped == 0).mean() < 0.05
    assert (wrapped > 192).mean() > (clipped > 192).mean() + 0.1


def test_the_third_candidate_is_made_of_the_noised_image_and_read_under_the_image():
    """Against the plain forward: each place's likeliest token after the chosen answer so far, then scored."""
    method = Method(CONFIG, named("povid", {"noise_step": 300}), optax.identity(), seed=5)
    batch, base = batch_for(method.recipe), tiny_model().params
    fresh = lora.initialise(llava.table(CONFIG), LoraConfig(rank=2, alpha=2.0), jax.random.key(1))
    trained = Trained(jax.tree.map(lambda leaf: leaf + 0.05, fresh), {})

    @jax.jit
    def both(trained, base, batch):
        features = encode_views(CONFIG, (base, None), make_views(method.recipe, batch, method.seed))
        prompt, answer, there = (
            (batch.prefix_tokens, batch.prefix_mask),
            batch.response_tokens,
            batch.response_mask,
        )
        tokens = jnp.concatenate([prompt[0], answer[:, 0]], axis=1)
        valid = jnp.concatenate([prompt[1], there[:, 0]], axis=1)
        states = llava.hidden_states(base, CONFIG, tokens, valid, features[:, 1])
        likeliest = llava.logits(base, states[:, prompt[0].shape[1] - 1 : -1]).argmax(-1)
        made = jnp.where(there[:, 0], likeliest, 0)[:, None]
        plain = [
            token_log_probs(base, adapter, CONFIG, features, *prompt, made, there[:, :1], ((0, 0),))
            for adapter in (trained.adapter, None)
        ]
        return made, plain, method.reference_scores(base, batch).made, method.scores(trained, base, batch)

    expected, (policy, reference), made, scores = both(trained, base, jax.tree.map(jnp.asarray, batch))
    there = batch.response_mask[:, 0]
    np.testing.assert_array_equal(made, expected)
    assert (made[:, 0] != batch.response_tokens[:, 0])[there].any()
    np.testing.assert_allclose(scores.policy_tokens[:, 2:], policy, atol=1e-5)
    np.testing.assert_allclose(scores.reference_tokens[:, 2:], reference, atol=1e-5)
    np.testing.assert_array_equal(scores.mask[:, 2], there)
