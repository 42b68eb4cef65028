"""Our reward head against transformers' sequence classifier with one label, on its own hidden states."""

import jax
import numpy as np
import pytest
from einops import rearrange

from vla_jax.models import reward

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

WORDS, PADDING, WIDTH, LENGTH = 40, 3, 36, 9
LENGTHS = (LENGTH, 4, 1, 7)


@pytest.fixture(scope="module")
def model():
    """A reward model of transformers whose every weight is random and loud enough to matter."""
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
    model = transformers.LlamaForSequenceClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                weight.add_(0.3 * noise)
            else:
                weight.copy_(noise / weight[0].numel() ** 0.5)
    return model


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_rewards_are_the_same(model, side):
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
    (parameter,) = reward.table(WIDTH).values()
    score = rearrange(model.state_dict()[parameter.hugging_face].numpy(), parameter.layout)
    assert score.shape == parameter.shape
    rewards = jax.jit(reward.rewards)({"score": score}, output.hidden_states[-1].numpy(), valid)
    expected = output.logits[:, 0].numpy()
    np.testing.assert_allclose(rewards, expected, atol=1e-5)
    assert expected.std() > 0.3
