"""What we write, PyTorch loads and computes the same with; what PyTorch writes, we do."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
import transformers  # noqa: E402

from tests.parity.random_llava import IMAGE, PINPOINTS, Prompts, build, draw_config  # noqa: E402
from tests.parity.test_llava_parity import run  # noqa: E402
from tests.small_models import tiny_tokenizer  # noqa: E402
from vla_jax.convert import export_checkpoint, import_checkpoint  # noqa: E402
from vla_jax.data import Encoder  # noqa: E402
from vla_jax.interop import load_model, save_model  # noqa: E402
from vla_jax.models import LoraConfig, llava, lora  # noqa: E402

pytestmark = pytest.mark.parity

QUESTION = "What is in the image?"
TILE = 24


def their_processor(config):
    """The processor of transformers for a configuration drawn by `draw_config`."""
    anyres = config.model_type == "llava_next"
    siglip = config.vision_config.model_type == "siglip_vision_model"
    common = {
        "tokenizer": tiny_tokenizer(),
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "num_additional_image_tokens": 0 if siglip else 1,
        "chat_template": tiny_tokenizer().chat_template,
    }
    size = {"size": {"shortest_edge": TILE}, "crop_size": {"height": TILE, "width": TILE}}
    if anyres:
        images = transformers.LlavaNextImageProcessorPil(**size, image_grid_pinpoints=PINPOINTS)
        return transformers.LlavaNextProcessor(images, **common)
    statistics = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    images = transformers.LlavaImageProcessorPil(**size, **statistics)
    return transformers.LlavaProcessor(images, **common)


def words_of(config):
    """The configuration with the tiny tokenizer's vocabulary."""
    tokenizer = tiny_tokenizer()
    config.text_config.vocab_size = len(tokenizer)
    config.image_token_index = tokenizer.convert_tokens_to_ids("<image>")
    config.text_config.eos_token_id = tokenizer.eos_token_id
    return config


# Mistral with a window and NeXT; Llama with CLIP; Qwen2 with NeXT and a SigLIP tower; DINOv2.
@pytest.fixture(scope="module", params=[5, 0, 2, 4])
def checkpoint(request, tmp_path_factory):
    """A folder that PyTorch wrote, and the model in it."""
    folder = tmp_path_factory.mktemp("theirs") / "checkpoint"
    theirs = build(words_of(draw_config(request.param)), request.param)
    theirs.save_pretrained(folder)
    their_processor(theirs.config).save_pretrained(folder)
    return folder, theirs


@pytest.fixture(scope="module")
def imported(checkpoint, tmp_path_factory):
    """The same as a model folder of ours."""
    folder, _ = checkpoint
    ours = tmp_path_factory.mktemp("ours") / "model"
    import_checkpoint(str(folder), ours)
    return ours


def from_pretrained(folder):
    """The model that PyTorch finds in a folder; every tensor must be found and none be left over."""
    loader = transformers.AutoModelForImageTextToText
    model, report = loader.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return model.eval()


def logits_of(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits.float().numpy()


def photo():
    return np.random.default_rng(3).integers(0, 256, (30, 50, 3), np.uint8)


def test_import_and_export_give_pytorch_the_same_model_to_the_bit(checkpoint, imported, tmp_path):
    folder, theirs = checkpoint
    export_checkpoint(imported, tmp_path / "back")
    back = from_pretrained(tmp_path / "back")
    assert type(back) is type(theirs)
    state = back.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(state[name], tensor), name
    before, after = (json.loads((where / "config.json").read_text()) for where in (folder, tmp_path / "back"))
    assert after == before


def test_the_exported_processor_does_what_the_original_did(checkpoint, imported, tmp_path):
    folder, _ = checkpoint
    export_checkpoint(imported, tmp_path / "back")
    text = f"<s>USER: <image>\n{QUESTION} ASSISTANT:"
    before, after = (
        transformers.AutoProcessor.from_pretrained(where)(
            images=Image.fromarray(photo()), text=text, return_tensors="np"
        )
        for where in (folder, tmp_path / "back")
    )
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def encoder_of(model):
    return Encoder(model.tokenizer, model.processor, model.config.num_image_tokens, (), max_prompt_length=200)


def test_prompts_are_the_processors_token_for_token(checkpoint, imported):
    """From an image and a question, by the checkpoint's own template."""
    processor = transformers.AutoProcessor.from_pretrained(checkpoint[0])
    content = [{"type": "image", "image": Image.fromarray(photo())}, {"type": "text", "text": QUESTION}]
    expected = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="np",
    )
    model = load_model(imported)
    ids = encoder_of(model).prompt(QUESTION, [photo().shape[:2]])
    np.testing.assert_array_equal(ids, expected["input_ids"][0])
    tiles = model.processor(photo())
    pixels = (tiles / 255 - model.config.vision.pixel_mean) / model.config.vision.pixel_std
    theirs = expected["pixel_values"].reshape(-1, 3, TILE, TILE)
    np.testing.assert_allclose(pixels.transpose(0, 3, 1, 2), theirs, atol=1e-5)


def with_adapter(imported, path, rank=3):
    """The imported model with a LoRA adapter that does something, saved."""
    model = load_model(imported)
    config = LoraConfig(rank=rank, alpha=5.0, targets="^language/layers/|projector/fc1|vision/layers/fc")
    fresh = lora.initialise(llava.table(model.config), config, jax.random.key(0))
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype), fresh)
    save_model(path, replace(model, adapter=drawn, lora=config))
    return load_model(path)


@pytest.fixture(scope="module")
def adapted(imported, tmp_path_factory):
    path = tmp_path_factory.mktemp("adapted") / "model"
    return path, with_adapter(imported, path)


def our_logits(model, prompts):
    """Of base and adapter, beside each other."""
    _, _, logits = run(model.params, model.config, prompts, model.adapter)
    return np.asarray(logits)[prompts.mask]


def prompts_for(theirs, seed=1):
    prompts = Prompts(theirs.config, seed)
    prompts.tokens = np.where(prompts.tokens == IMAGE, theirs.config.image_token_index, prompts.tokens)
    return prompts


def test_a_merged_adapter_gives_pytorch_the_logits_of_base_and_adapter(checkpoint, adapted, tmp_path):
    _, theirs = checkpoint
    path, model = adapted
    prompts = prompts_for(theirs)
    export_checkpoint(path, tmp_path / "merged", merge_adapter=True)
    merged = logits_of(from_pretrained(tmp_path / "merged"), prompts.for_torch())[prompts.mask]
    np.testing.assert_allclose(merged, our_logits(model, prompts), atol=1e-4, rtol=0)
    without = our_logits(replace(model, adapter=None, lora=None), prompts)
    assert np.abs(merged - without).max() > 0.1


def test_an_adapter_written_for_peft_gives_the_same_logits_there(checkpoint, adapted, tmp_path):
    folder, theirs = checkpoint
    path, model = adapted
    prompts = prompts_for(theirs)
    export_checkpoint(path, tmp_path / "adapter", adapter_only=True)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())[
        "base_model_name_or_path"
    ] == str(folder)
    wrapped = peft.PeftModel.from_pretrained(from_pretrained(folder), tmp_path / "adapter").eval()
    loaded = {name for name, _ in wrapped.named_parameters() if "lora_" in name}
    factors = jax.tree.leaves(model.adapter)
    assert len(loaded) == sum(leaf.shape[0] if leaf.ndim == 3 else 1 for leaf in factors)
    logits = logits_of(wrapped, prompts.for_torch())[prompts.mask]
    np.testing.assert_allclose(logits, our_logits(model, prompts), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": "all-linear", "use_rslora": True},
        {"target_modules": r".*language_model.*\.(gate_proj|o_proj)", "layers_to_transform": None},
        {"target_modules": ["up_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    ],
    ids=["names", "all linear, rslora", "pattern", "one layer"],
)
def test_an_adapter_trained_in_pytorch_gives_the_same_logits_here(checkpoint, options, tmp_path):
    folder, theirs = checkpoint
    if theirs.config.vision_config.model_type == "siglip_vision_model" and "all" in str(options):
        # PEFT adapts the tower's unused pooling head too, which no hidden state passes through.
        options = options | {"exclude_modules": r".*vision_tower\.head.*"}
    config = peft.LoraConfig(r=4, lora_alpha=6, **options)
    wrapped = peft.get_peft_model(from_pretrained(folder), config)
    prompts = prompts_for(theirs)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    # A few steps of training, so that both factors have moved.
    optimizer = torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        wrapped(**prompts.for_torch()).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    wrapped.eval().save_pretrained(tmp_path / "adapter")
    expected = logits_of(wrapped, prompts.for_torch())[prompts.mask]
    import_checkpoint(str(folder), tmp_path / "ours", adapter=str(tmp_path / "adapter"))
    ours = our_logits(load_model(tmp_path / "ours"), prompts)
    np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0)
    before = logits_of(theirs, prompts.for_torch())[prompts.mask]
    assert np.abs(expected - before).max() > 0.05


def test_an_adapter_finds_its_base_by_the_name_it_gives(checkpoint, adapted, tmp_path):
    path, model = adapted
    export_checkpoint(path, tmp_path / "adapter", adapter_only=True)
    import_checkpoint(str(tmp_path / "adapter"), tmp_path / "again")
    again = load_model(tmp_path / "again")
    assert jax.tree.structure(again.adapter) == jax.tree.structure(model.adapter)
    jax.tree.map(np.testing.assert_array_equal, again.adapter, model.adapter)
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


def test_an_imported_model_gives_the_logits_of_the_original(checkpoint, imported):
    _, theirs = checkpoint
    prompts = prompts_for(theirs)
    expected = logits_of(theirs, prompts.for_torch())[prompts.mask]
    np.testing.assert_allclose(our_logits(load_model(imported), prompts), expected, atol=1e-4, rtol=0)


def rewritten(folder, edit, **config):
    """A copy of a checkpoint with its tensors edited and its config changed."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    described = json.loads((folder / "config.json").read_text())
    described["text_config"] |= config.pop("text_config", {})
    (folder / "config.json").write_text(json.dumps(described | config))
    return folder


@pytest.fixture
def plain(tmp_path):
    """A Llama with CLIP, untied, of PyTorch."""
    config = words_of(draw_config(0))
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    theirs = build(config)
    theirs.save_pretrained(tmp_path / "plain")
    their_processor(theirs.config).save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def assert_alike(folder, tmp_path):
    """PyTorch's logits of a folder, ours of it, and PyTorch's of what we make of it, are the same."""
    theirs = from_pretrained(folder)
    prompts = prompts_for(theirs)
    expected = logits_of(theirs, prompts.for_torch())[prompts.mask]
    import_checkpoint(str(folder), tmp_path / "ours")
    np.testing.assert_allclose(
        our_logits(load_model(tmp_path / "ours"), prompts), expected, atol=1e-4, rtol=0
    )
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    back = logits_of(from_pretrained(tmp_path / "back"), prompts.for_torch())[prompts.mask]
    np.testing.assert_array_equal(back, expected)


TIED = {"tie_word_embeddings": True, "text_config": {"tie_word_embeddings": True}}
HEAD, EMBEDDING = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"


@pytest.mark.parametrize(
    "edit",
    [
        lambda tensors: None,
        lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].copy()}),
        lambda tensors: tensors.pop(HEAD),
    ],
    ids=["two that differ", "the same twice", "one"],
)
def test_tied_embeddings_are_what_pytorch_makes_of_them(plain, tmp_path, edit):
    assert_alike(rewritten(plain, edit, **TIED), tmp_path)


def test_a_window_that_is_left_in_a_llamas_config_is_none(plain, tmp_path):
    """As PyTorch's Llama has no such field."""
    left_over = {"sliding_window": 4, "layer_types": None}
    assert_alike(rewritten(plain, lambda tensors: None, text_config=left_over), tmp_path)


def test_half_precision_with_a_full_precision_adapter(checkpoint, imported, tmp_path):
    """PEFT keeps factors in float32 beside a bfloat16 base; the error is PyTorch's or less.

    Both sides round in places of their own, so that on one prompt either may be off by a third more than the
    other; over eight they agree within a tenth.
    """
    folder, theirs = checkpoint
    full = with_adapter(imported, tmp_path / "adapted")
    export_checkpoint(tmp_path / "adapted", tmp_path / "peft", adapter_only=True)
    import_checkpoint(str(folder), tmp_path / "half", adapter=str(tmp_path / "peft"), dtype="bfloat16")
    model = load_model(tmp_path / "half")
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(model.adapter)} == {jnp.dtype("float32")}
    half = peft.PeftModel.from_pretrained(from_pretrained(folder).bfloat16(), tmp_path / "peft").eval()
    ours, reference = [], []
    for seed in range(8):
        prompts = prompts_for(theirs, seed)
        exact = our_logits(full, prompts)
        inputs = prompts.for_torch()
        inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
        reference.append(np.square(logits_of(half, inputs)[prompts.mask] - exact).mean())
        ours.append(np.square(our_logits(model, prompts) - exact).mean())
    assert 0 < np.sqrt(np.mean(ours)) < 1.2 * np.sqrt(np.mean(reference))
