"""Prompts with no image, one and several: ids, tiles and logits are those of transformers."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from tests.parity.test_conversion_parity import QUESTION, checkpoint, imported, logits_of  # noqa: E402, F401
from tests.parity.test_llava_parity import run  # noqa: E402
from vla_jax.data import CHOSEN, Encoder, Record, Turn  # noqa: E402
from vla_jax.data.batches import collate  # noqa: E402
from vla_jax.data.images import Pixels  # noqa: E402
from vla_jax.interop import load_model  # noqa: E402

pytestmark = pytest.mark.parity

PHOTOS = [np.random.default_rng(0).integers(0, 256, size, np.uint8) for size in [(30, 50, 3), (60, 25, 3)]]


def conversation(images):
    parts = [{"type": "image", "image": Image.fromarray(photo)} for photo in images]
    first = [{"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}]
    answered = [{"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}]
    return [*first, *answered, {"role": "user", "content": [{"type": "text", "text": QUESTION}]}]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_ids_tiles_and_logits_are_those_of_transformers(checkpoint, imported, count):  # noqa: F811
    processor, images = transformers.AutoProcessor.from_pretrained(checkpoint[0]), PHOTOS[:count]
    expected = processor.apply_chat_template(
        conversation(images), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    model = load_model(imported)
    encoder = Encoder(
        model.tokenizer,
        model.processor,
        model.config.num_image_tokens,
        (CHOSEN,),
        max_prompt_length=400,
        length_multiple=1,
        max_images=3,
    )
    record = Record(
        "a", tuple(map(Pixels, images)), QUESTION, {CHOSEN: "."}, (Turn("What is it?", "A cat."),)
    )
    batch = collate([encoder.encode(record)], encoder)
    np.testing.assert_array_equal(batch.prefix_tokens[0][batch.prefix_mask[0]], expected["input_ids"][0])
    prompts = SimpleNamespace(
        pixels=(batch.images / np.float32(255) - model.config.vision.pixel_mean)
        / model.config.vision.pixel_std,
        tokens=batch.prefix_tokens,
        mask=batch.prefix_mask,
        layouts=batch.layout,
    )
    _, _, logits = run(model.params, model.config, prompts)
    theirs = logits_of(checkpoint[1], expected)
    np.testing.assert_allclose(np.asarray(logits)[batch.prefix_mask], theirs[0], atol=1e-4, rtol=0)
