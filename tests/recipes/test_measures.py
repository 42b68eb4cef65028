"""What a step of every recipe logs: the names of TRL's trainers, and the values of a plain computation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.recipes.random_batches import CONFIG, batch_for, learns_from_rewards
from tests.small_models import draw, tiny_config, tiny_model
from vla_jax.models import llava, lora
from vla_jax.models.lora import LoraConfig
from vla_jax.recipes import available, named
from vla_jax.scoring import encode_views
from vla_jax.training.step import Method, Trained, make_step, make_views, sums_of

OF_A_STEP = {"loss", "grad_norm", "num_tokens"}
OF_REWARDS = {f"rewards/{what}" for what in ("chosen", "rejected", "margins", "accuracies")}
OF_RATIOS = {"clip_ratio", "clip_ratio/low_mean", "clip_ratio/high_mean"}
OF_TEXTS = {f"{what}/{which}" for what in ("logps", "logits") for which in ("chosen", "rejected")}
ADAPTER = lora.initialise(llava.table(CONFIG), LoraConfig(rank=2, alpha=2.0), jax.random.key(1))


@pytest.mark.parametrize("name", available())
def test_a_step_logs_what_users_of_trl_look_for(name):
    recipe = named(name)
    compares = recipe.needs_reference and not learns_from_rewards(recipe)
    expected = OF_A_STEP | (OF_TEXTS if compares else set())
    expected |= OF_REWARDS if compares or recipe.sequences else set()
    expected |= OF_RATIOS if learns_from_rewards(recipe) else set()
    config = tiny_config(reward_head=recipe.sequences, value_head=recipe.values)
    method = Method(config, recipe, optax.sgd(1.0), seed=0)
    base = jax.eval_shape(lambda: draw(llava.table(config)))
    heads = {name: base[name] for name in ("reward", "value") if name in base}
    trained = Trained(ADAPTER, heads)
    state = jax.eval_shape(method.init, trained)
    _, metrics = jax.eval_shape(make_step(method), state, base, batch_for(recipe))
    assert metrics.keys() >= expected
    assert {metric.shape for metric in metrics.values()} == {()}


def test_logits_and_log_probabilities_are_the_plain_forwards_under_the_image():
    """A mean over records of each answer's mean over tokens and vocabulary; a record of weight 0 left out."""
    method = Method(CONFIG, named("lpoi", {"num_views": 3}), optax.identity(), seed=0)
    batch, base = batch_for(method.recipe), tiny_model().params
    batch = batch._replace(weights=np.array([1, 0, 1], np.float32))
    trained = Trained(jax.tree.map(lambda leaf: leaf + 0.05, ADAPTER), {})

    @jax.jit
    def plain(trained, base, batch):
        model = base, trained.adapter
        features = encode_views(CONFIG, model, make_views(method.recipe, batch, 0))[:, 0]
        logits = []
        for response in range(2):
            tokens = jnp.concatenate([batch.prefix_tokens, batch.response_tokens[:, response]], axis=1)
            valid = jnp.concatenate([batch.prefix_mask, batch.response_mask[:, response]], axis=1)
            states = llava.hidden_states(base, CONFIG, tokens, valid, features, trained.adapter)
            logits.append(llava.logits(base, states[:, batch.prefix_tokens.shape[1] - 1 : -1]))
        return sums_of(method, trained, base, batch).means(), logits

    metrics, both = plain(trained, base, jax.tree.map(jnp.asarray, batch))
    for response, which in enumerate(("chosen", "rejected")):
        logits = np.asarray(both[response], np.float64)
        counted, tokens = batch.scored[:, response], batch.response_tokens[:, response]
        of_tokens = np.log(np.exp(logits).sum(-1))
        log_probs = np.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0] - of_tokens
        mean_logits = (logits.mean(-1) * counted).sum(1) / counted.sum(1)
        assert float(metrics[f"logits/{which}"]) == pytest.approx(mean_logits[[0, 2]].mean(), abs=1e-5)
        expected = (log_probs * counted).sum(1)[[0, 2]].mean()
        assert float(metrics[f"logps/{which}"]) == pytest.approx(expected, rel=1e-5)
