"""A model trained on the world, exported, answers in PyTorch with the same words."""

from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from tests import forked  # noqa: E402
from tests.parity.pytorch_models import params_of  # noqa: E402
from tests.parity.random_llava import Prompts, build, draw_config  # noqa: E402
from tests.parity.test_llava_parity import run  # noqa: E402
from vla_jax.convert import export_checkpoint  # noqa: E402
from vla_jax.data.world import EvaluationWorld, WorldConfig  # noqa: E402
from vla_jax.generate import answerer  # noqa: E402
from vla_jax.interop import load_model  # noqa: E402
from vla_jax.interop.configs import from_hugging_face  # noqa: E402
from vla_jax.models import llava  # noqa: E402
from vla_jax.rollout import Beams, Sampling, prefill, sample, search  # noqa: E402
from vla_jax.views import normalise  # noqa: E402

pytestmark = pytest.mark.parity

NEW = 64
QUESTIONS = (
    "What is in the image?",
    "Describe this image.",
    "Is there a cup?",
    "Is there a dog in the image? Look at every corner of it before you answer.",
    "What do you see?",
    "Is there a tree?",
    "Describe this image in one sentence.",
    "How many things are there, and what are they?",
)


def train(config: str, workdir: Path, *settings: str) -> Path:
    flags = [f"--config.{setting}" for setting in settings]
    done = forked.run("vla_jax.train", f"--config=configs/{config}.py", f"--workdir={workdir}", *flags)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two workdirs: a supervised model that has learnt to speak, and what a few steps of LPOI made of it."""
    root = tmp_path_factory.mktemp("world")
    supervised = train(
        "world_sft",
        root / "sft",
        "base.config=",
        "train.frozen=",
        "train.steps=100",
        "model.vision.hidden_size=64",
        "model.vision.intermediate_size=128",
        "model.vision.num_layers=2",
        "model.language.hidden_size=64",
        "model.language.intermediate_size=128",
        "model.language.num_layers=2",
        "model.language.num_kv_heads=2",
        "checkpoint.every=100",
    )
    aligned = train(
        "world_lpoi",
        root / "lpoi",
        "base.config=",
        f"base.model={supervised}",
        "train.steps=8",
        "train.batch_size=16",
        "lora.rank=4",
        "evaluation.scenes=0",
    )
    return {"supervised": supervised, "aligned": aligned}


@pytest.fixture(scope="module", params=["supervised", "aligned"])
def both(request, trained, tmp_path_factory):
    """Our model, and PyTorch's with its processor."""
    ours = load_model(trained[request.param])
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_checkpoint(trained[request.param], folder, merge_adapter=ours.adapter is not None)
    theirs = transformers.LlavaForConditionalGeneration.from_pretrained(folder).eval()
    return ours, theirs, transformers.AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def scenes(both):
    held_out = EvaluationWorld(WorldConfig(image_size=72), len(QUESTIONS))
    return [held_out[i].image for i in range(len(QUESTIONS))]


def rendered(processor, question):
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def their_tokens(theirs, processor, images, questions, **how):
    """Ids of their greedy answers [b t]."""
    processor.tokenizer.padding_side = "left"
    inputs = processor(
        images=[Image.fromarray(image) for image in images],
        text=[rendered(processor, question) for question in questions],
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        made = theirs.generate(**inputs, max_new_tokens=NEW, do_sample=False, **how)
    return made[:, inputs["input_ids"].shape[1] :].numpy()


def prompted(model, images, questions):
    """Image tokens, and ids and mask of the prompts."""
    encoder = answerer(model, 120).encoder
    tokens, mask = np.zeros((len(images), 120), np.int32), np.zeros((len(images), 120), bool)
    for i, (image, question) in enumerate(zip(images, questions, strict=True)):
        ids = encoder.prompt(question, [image.shape[:2]])
        tokens[i, -len(ids) :], mask[i, -len(ids) :] = ids, True
    vision = model.config.vision
    pixels = np.concatenate([model.processor(image) for image in images])
    pixels = normalise(pixels, vision.pixel_mean, vision.pixel_std)
    features = jax.jit(llava.image_features, static_argnums=1)(
        model.params, model.config, pixels, model.adapter
    )
    return features, tokens, mask


def our_tokens(model, images, questions, end_ids):
    sampled = sample(
        model.params, model.adapter, model.config, *prompted(model, images, questions), Sampling(NEW, end_ids)
    )
    return np.asarray(sampled.tokens[:, 0])


def test_the_same_64_tokens_single_and_batched(both, scenes):
    """Without an end of sequence, so that every answer runs its full length."""
    ours, theirs, processor = both
    on = {"eos_token_id": None, "pad_token_id": 0}
    expected = their_tokens(theirs, processor, scenes, QUESTIONS, **on)
    assert expected.shape == (len(QUESTIONS), NEW)
    np.testing.assert_array_equal(our_tokens(ours, scenes, QUESTIONS, end_ids=()), expected)
    for image, question, batched in zip(scenes, QUESTIONS, expected, strict=True):
        alone = their_tokens(theirs, processor, [image], [question], **on)[0]
        np.testing.assert_array_equal(alone, batched)
        np.testing.assert_array_equal(our_tokens(ours, [image], [question], end_ids=())[0], alone)
    # A model that had not learnt to speak would say the same thing to everything.
    assert len({tuple(row) for row in expected}) > 3


def test_the_same_captions_in_words(both, scenes):
    """By way of `generate`'s own end of sequence, and our command's own answers."""
    ours, theirs, processor = both
    made = their_tokens(theirs, processor, scenes, QUESTIONS)
    expected = [text.strip() for text in processor.batch_decode(made, skip_special_tokens=True)]
    answers = answerer(ours, 120, batch_size=3).answer(scenes, QUESTIONS, max_new_tokens=NEW)
    assert answers == expected
    assert any(" a " in f" {answer} " for answer in answers), answers


@pytest.fixture(scope="module")
def random_models(tmp_path_factory):
    """Seed -> a random model of theirs, its parameters and configuration as ours, prompts, image tokens."""

    @cache
    def of(seed):
        theirs = build(draw_config(seed), seed)
        config, prompts = from_hugging_face(theirs.config), Prompts(theirs.config, seed)
        params = params_of(llava.table(config), theirs, tmp_path_factory.mktemp("random"))
        return theirs, params, config, prompts, run(params, config, prompts)[0]

    return of


@pytest.mark.parametrize(
    "seed", [7, 11, 2, 8], ids=["mistral", "mistral in tiles", "qwen2 in tiles", "tiles"]
)
def test_greedy_answers_of_random_models_are_the_same(seed, random_models):
    """Windows shorter than the prompt, over a cache, in all layers or some, and images in tiles."""
    theirs, params, config, prompts, features = random_models(seed)
    with torch.no_grad():
        made = theirs.generate(
            **prompts.for_torch(), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    sampled = sample(params, None, config, features, prompts.tokens, prompts.mask, Sampling(12))
    np.testing.assert_array_equal(sampled.tokens[:, 0], made[:, prompts.tokens.shape[1] :].numpy())


BEAMS = {
    "plain": Beams(3),
    "the first to end": Beams(3, early_stopping=True),
    "long ones, to the end": Beams(4, length_penalty=1.2, early_stopping="never"),
    "short ones": Beams(2, length_penalty=-1.0),
}


def their_beams(theirs, inputs, beams, new_tokens, **how):
    """Ids [b n t], padded with 0, and scores of all beams, best first."""
    with torch.no_grad():
        made = theirs.generate(
            **inputs,
            max_new_tokens=new_tokens,
            do_sample=False,
            num_beams=beams.num_beams,
            num_return_sequences=beams.num_beams,
            length_penalty=beams.length_penalty,
            early_stopping=beams.early_stopping,
            return_dict_in_generate=True,
            output_scores=True,
            **how,
        )
    shape = (-1, beams.num_beams, new_tokens)
    ids = made.sequences[:, inputs["input_ids"].shape[1] :].numpy()
    return np.pad(ids, ((0, 0), (0, new_tokens - ids.shape[1]))).reshape(shape), made.sequences_scores.numpy()


@pytest.mark.parametrize("how", BEAMS)
def test_beams_of_a_random_model_are_the_same(how, random_models):
    """Two tokens that it often says end a beam. A window in every layer, over the forks' caches."""
    theirs, params, config, prompts, features = random_models(7)
    ends, beams = (11, 30), BEAMS[how]
    expected, scores = their_beams(
        theirs, prompts.for_torch(), beams, 10, eos_token_id=list(ends), pad_token_id=0
    )
    prefilled = prefill(params, None, config, features, prompts.tokens, prompts.mask)
    made, ours = search(params, None, config, prefilled, Sampling(10, ends), beams)
    kept = np.asarray(made.mask)
    assert not kept.all()
    np.testing.assert_array_equal(np.where(kept, made.tokens, 0), np.where(kept, expected, 0))
    assert np.isin(expected[~kept], (0, ends[0])).all()
    np.testing.assert_allclose(ours.ravel(), scores, atol=1e-4)


def test_beams_of_the_worlds_model_are_the_same(both, scenes):
    ours, theirs, processor = both
    beams = Beams(4)
    processor.tokenizer.padding_side = "left"
    inputs = processor(
        images=[Image.fromarray(image) for image in scenes],
        text=[rendered(processor, question) for question in QUESTIONS],
        padding=True,
        return_tensors="pt",
    )
    expected, scores = their_beams(theirs, inputs, beams, NEW)
    prefilled = prefill(ours.params, ours.adapter, ours.config, *prompted(ours, scenes, QUESTIONS))
    made, found = search(
        ours.params, ours.adapter, ours.config, prefilled, Sampling(NEW, ours.end_ids), beams
    )
    kept = np.asarray(made.mask)
    np.testing.assert_array_equal(np.where(kept, made.tokens, 0), np.where(kept, expected, 0))
    assert np.isin(expected[~kept], (0, theirs.generation_config.pad_token_id, *ours.end_ids)).all()
    np.testing.assert_allclose(found.ravel(), scores, atol=1e-4)
