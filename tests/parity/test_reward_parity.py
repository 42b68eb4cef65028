"""Our reward head against transformers' sequence classifier with one label, on its own hidden states."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from tests.parity.pytorch_models import loud, params_of  # noqa: E402
from vla_jax.models import reward  # noqa: E402

pytestmark = pytest.mark.parity

WORDS, PADDING, WIDTH, LENGTH = 40, 3, 36, 9
LENGTHS = (LENGTH, 4, 1, 7)


@pytest.fixture(scope="module")
def model():
    """A reward model of transformers."""
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        intermediate_size=50,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=3,
        num_labels=1,
        pad_token_id=PADDING,
    )
    return loud(transformers.LlamaForSequenceClassification(config))


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_rewards_are_the_same(model, side, tmp_path):
    valid = np.arange(LENGTH) < np.array(LENGTHS)[:, None]
    if side == "left":
        valid = valid[:, ::-1]
    tokens = np.where(valid, np.random.default_rng(0).integers(PADDING + 1, WORDS, valid.shape), PADDING)
    with torch.no_grad():
        output = model(
            torch.from_numpy(tokens),
            attention_mask=torch.from_numpy(valid.astype(np.int64)),
            output_hidden_states=True,
        )
    # The decoder under the head is none of the head's business.
    params = params_of(reward.table(WIDTH), model, tmp_path, ignore=lambda name: name != "score.weight")
    rewards = jax.jit(reward.rewards)(params, output.hidden_states[-1].numpy(), valid)
    expected = output.logits[:, 0].numpy()
    np.testing.assert_allclose(rewards, expected, atol=1e-5)
    assert expected.std() > 0.3
