"""Log-probabilities do not depend on padding, batch size, batch mates or bucket length; and are PyTorch's."""

from functools import partial

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.parity.pytorch_models import channels_first, params_of, to_torch  # noqa: E402
from tests.parity.random_llava import IMAGE, build, draw_config  # noqa: E402
from vla_jax.interop.configs import from_hugging_face  # noqa: E402
from vla_jax.models import llava  # noqa: E402
from vla_jax.scoring import token_log_probs  # noqa: E402

pytestmark = pytest.mark.parity

PREFIXES, RESPONSES = (7, 3, 12), (40, 1, 23)
score = jax.jit(token_log_probs, static_argnums=(2, 8))
image_features = jax.jit(llava.image_features, static_argnums=1)


@partial(jax.jit, static_argnums=1)
def every_log_prob(params, config, tokens, mask, features):
    """Of every token at every position."""
    states = llava.hidden_states(params, config, tokens, mask, features)
    return jax.nn.log_softmax(llava.logits(params, states))


# Llama with a SigLIP tower; Mistral with a window; Qwen2 with a window in some layers.
@pytest.fixture(scope="module", params=[12, 13, 6])
def model(request, tmp_path_factory):
    theirs = build(draw_config(request.param), request.param)
    config = from_hugging_face(theirs.config)
    return theirs, config, params_of(llava.table(config), theirs, tmp_path_factory.mktemp("m"))


@pytest.fixture(scope="module")
def rows(model):
    """Examples of unequal lengths: pixels, prompt, response."""
    _, config, _ = model
    rng = np.random.default_rng(0)
    n, words = config.num_image_tokens, config.language.vocab_size
    made = []
    for prefix, response in zip(PREFIXES, RESPONSES, strict=True):
        text = rng.integers(IMAGE + 1, words, prefix)
        prompt = np.concatenate([text[:2], [IMAGE] * n, text[2:]])
        pixels = rng.normal(size=(24, 24, 3)).astype(np.float32)
        made.append((pixels, prompt, rng.integers(IMAGE + 1, words, response)))
    return made


def scored(model, rows, prefix_bucket, response_bucket, fill=0):
    """Log-probabilities of each row's response, padded to the buckets with the token `fill`."""
    _, config, params = model
    shape = (len(rows), prefix_bucket)
    tokens, mask = np.full(shape, fill), np.zeros(shape, bool)
    shape = (len(rows), 1, response_bucket)
    answers, answer_mask = np.full(shape, fill), np.zeros(shape, bool)
    for i, (_, prompt, response) in enumerate(rows):
        tokens[i, -len(prompt) :], mask[i, -len(prompt) :] = prompt, True
        answers[i, 0, : len(response)], answer_mask[i, 0, : len(response)] = response, True
    pixels = np.stack([row[0] for row in rows])
    features = image_features(params, config, pixels)[:, None]
    made = score(params, None, config, features, tokens, mask, answers, answer_mask, ((0, 0),))
    return [np.asarray(made[i, 0, : len(row[2])]) for i, row in enumerate(rows)]


def longest(rows):
    return max(len(row[1]) for row in rows), max(len(row[2]) for row in rows)


def assert_close(made, expected, tolerance=1e-5):
    for ours, reference in zip(made, expected, strict=True):
        np.testing.assert_allclose(ours, reference, atol=tolerance, rtol=0)


def alone(model, rows):
    """Each row by itself, without padding."""
    return [scored(model, [row], len(row[1]), len(row[2]))[0] for row in rows]


@pytest.mark.parametrize("fill", [0, IMAGE + 2])
@pytest.mark.parametrize("extra", [(0, 0), (5, 9), (30, 64)], ids=str)
def test_batch_mates_and_buckets_do_not_matter(model, rows, extra, fill):
    prefix, response = longest(rows)
    batched = scored(model, rows, prefix + extra[0], response + extra[1], fill)
    assert_close(batched, alone(model, rows))


@pytest.mark.parametrize("size", [1, 2])
def test_batch_size_does_not_matter(model, rows, size):
    prefix, response = longest(rows)
    whole = scored(model, rows, prefix, response)
    parts = [
        row
        for start in range(0, len(rows), size)
        for row in scored(model, rows[start : start + size], prefix, response)
    ]
    assert_close(parts, whole)


def test_the_order_of_a_batch_does_not_matter(model, rows):
    prefix, response = longest(rows)
    backwards = scored(model, rows[::-1], prefix, response)
    assert_close(backwards[::-1], scored(model, rows, prefix, response))


@pytest.mark.parametrize("left", [True, False])
def test_the_side_of_the_padding_does_not_matter(model, rows, left):
    """Whole sequences, padded on one side."""
    _, config, params = model
    sequences = [np.concatenate(row[1:]) for row in rows]
    length = max(map(len, sequences)) + 4
    tokens, mask = np.zeros((len(rows), length), int), np.zeros((len(rows), length), bool)
    for i, sequence in enumerate(sequences):
        place = slice(length - len(sequence), length) if left else slice(0, len(sequence))
        tokens[i, place], mask[i, place] = sequence, True
    features = image_features(params, config, np.stack([row[0] for row in rows]))
    log_probs = every_log_prob(params, config, tokens, mask, features)
    made = []
    for i, (_, prompt, response) in enumerate(rows):
        own = np.asarray(log_probs[i])[mask[i]]
        before = slice(len(prompt) - 1, len(prompt) - 1 + len(response))
        made.append(own[before][np.arange(len(response)), response])
    assert_close(made, alone(model, rows))


def test_they_are_pytorchs(model, rows):
    theirs, _, _ = model
    expected = []
    for pixels, prompt, response in rows:
        tokens = to_torch(np.concatenate([prompt, response])[None])
        with torch.no_grad():
            logits = theirs(input_ids=tokens, pixel_values=channels_first(pixels[None])).logits[0]
        before = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
        expected.append(before[torch.arange(len(response)), to_torch(response)].numpy())
    prefix, response = longest(rows)
    assert_close(scored(model, rows, prefix + 3, response + 3), expected, tolerance=1e-4)
    assert np.concatenate(expected).std() > 0.5
