"""CLIPs as folders: ours are read again to the bit, and by transformers; what is no verifier is refused."""

import json

import jax
import numpy as np
import pytest

from tests.small_clip import small_clip
from vla_jax.interop.checkpoint import CheckpointError
from vla_jax.interop.clip_folder import load_clip, save_clip
from vla_jax.models import clip


@pytest.fixture(scope="module", params=["clip", "siglip"])
def saved(request, tmp_path_factory):
    model = small_clip(request.param)
    folder = tmp_path_factory.mktemp(request.param) / "model"
    save_clip(folder, model)
    return model, folder


def test_what_was_saved_is_what_is_loaded(saved):
    model, folder = saved
    loaded = load_clip(folder)
    assert loaded.config == model.config and loaded.processor == model.processor
    jax.tree.map(np.testing.assert_array_equal, loaded.params, model.params)
    texts = ["a cup", "two umbrellas"]
    assert loaded.tokenizer(texts)["input_ids"] == model.tokenizer(texts)["input_ids"]


@pytest.mark.parity
def test_transformers_reads_it_and_says_the_same(saved):
    torch = pytest.importorskip("torch")
    import transformers

    model, folder = saved
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(["cup", "a tree"], padding="max_length", return_tensors="np")["input_ids"]
    pixels = np.random.default_rng(0).normal(size=(2, 24, 24, 3)).astype(np.float32)
    with torch.no_grad():
        said = theirs(
            input_ids=torch.tensor(tokens), pixel_values=torch.tensor(pixels.transpose(0, 3, 1, 2).copy())
        )
    images = clip.image_embeddings(model.params, model.config, pixels)
    texts = clip.text_embeddings(model.params, model.config, tokens)
    np.testing.assert_allclose(images @ texts.T, said.image_embeds @ said.text_embeds.T, atol=1e-5)


def test_what_is_no_pair_of_towers_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config.json there; give the folder of a CLIP or SigLIP"):
        load_clip(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="holds a 'bert'; a verifier is a clip or a siglip"):
        load_clip(tmp_path)
