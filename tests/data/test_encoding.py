"""Records as token ids: what the chat template renders, what is scored, what is refused."""

import copy
import io
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.chat_templates import TEMPLATES
from tests.small_models import tiny_tokenizer
from vla_jax.data import CHOSEN, REJECTED, DataError, Encoder, Object, Record, Turn
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.images import ImageBytes, Pixels
from vla_jax.data.key_object import NAMED

TOKENIZER = tiny_tokenizer()
IMAGE_ID = TOKENIZER.convert_tokens_to_ids("<image>")
NUM_IMAGE_TOKENS = 4
ENCODER = Encoder(
    TOKENIZER,
    ImageProcessor.square(24),
    NUM_IMAGE_TOKENS,
    (CHOSEN, REJECTED),
    max_prompt_length=200,
    max_completion_length=400,
)
RECORD = Record(
    key="line 7",
    images=(Pixels(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)),),
    question="What is in the image?",
    responses={CHOSEN: "A red cat. It sits.", REJECTED: "A blue dog, 狗."},
    further_turns=(Turn("How many?", "Just one."), Turn("Sure?", "Yes, it is!")),
    objects=(Object("cat", (4.0, 5.0, 20.0, 25.0)),),
)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda t: t.strip() and not any(token in t for token in TOKENIZER.all_special_tokens)
)


def rendered(record, answer, further_turns=()):
    """The whole conversation as the chat template writes it."""
    turns = [Turn(record.question, answer), *further_turns]
    messages = []
    for i, turn in enumerate(turns):
        image = [{"type": "image"}] if i == 0 else []
        messages.append({"role": "user", "content": [*image, {"type": "text", "text": turn.question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return TOKENIZER.apply_chat_template(messages, tokenize=False)


def in_one_go(text):
    """Ids of a whole render, the image placeholder repeated for each image token."""
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return [i for token in ids for i in [token] * (NUM_IMAGE_TOKENS if token == IMAGE_ID else 1)]


@pytest.mark.smoke
@pytest.mark.parametrize("place, role", [(0, CHOSEN), (1, REJECTED)])
def test_prompt_and_response_are_the_rendered_conversation_tokenised_in_one_go(place, role):
    encoded = ENCODER.encode(RECORD)
    joined = [*encoded.prefix, *encoded.responses[place]]
    assert joined == in_one_go(rendered(RECORD, RECORD.responses[role]))


@given(question=texts, answer=texts)
@settings(max_examples=50, deadline=None)
def test_so_are_those_of_any_question_and_answer(question, answer):
    record = replace(RECORD, question=question, responses={CHOSEN: answer, REJECTED: "No."})
    encoded = ENCODER.encode(record)
    assert [*encoded.prefix, *encoded.responses[0]] == in_one_go(rendered(record, answer))
    assert encoded.scored[0].all()


def test_the_prompt_alone_is_the_records_prefix():
    encoded = ENCODER.encode(RECORD)
    np.testing.assert_array_equal(encoded.prefix, ENCODER.prompt(RECORD.question, [RECORD.image.shape[:2]]))
    assert (encoded.prefix == IMAGE_ID).sum() == NUM_IMAGE_TOKENS
    assert TOKENIZER.decode(encoded.prefix).endswith("ASSISTANT:")


def test_the_whole_answer_and_its_end_of_sequence_are_scored():
    encoded = ENCODER.encode(RECORD)
    for ids, scored, role in zip(encoded.responses, encoded.scored, (CHOSEN, REJECTED), strict=True):
        assert scored.all() and scored.shape == ids.shape
        assert ids[-1] == TOKENIZER.eos_token_id
        assert TOKENIZER.decode(ids) == f" {RECORD.responses[role]}</s>"


def test_a_template_that_closes_no_answer_gets_its_end_of_sequence():
    tokenizer = tiny_tokenizer.__wrapped__()
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ eos_token }}", "")
    ids = replace(ENCODER, tokenizer=tokenizer).encode(RECORD)
    assert ids.responses[0][-1] == tokenizer.eos_token_id and ids.scored[0][-1]


def test_what_a_template_leaves_behind_an_answer_is_not_scored():
    """LLaVA-1.5's leaves a blank there, for the next turn."""
    tokenizer = copy.copy(TOKENIZER)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}USER: <image>\n{{ m.content[-1].text }} "
        "{% else %}ASSISTANT: {{ m.content[0].text + ' ' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )
    encoded = replace(ENCODER, tokenizer=tokenizer).encode(RECORD)
    ids = encoded.responses[0]
    assert TOKENIZER.decode(ids).strip() == RECORD.responses[CHOSEN] + "</s>"
    assert encoded.scored[0].all()


def test_a_key_object_that_the_crop_cuts_off_is_said_so():
    wide = replace(RECORD, images=(Pixels(np.zeros((30, 90, 3), np.uint8)),))
    cropped = replace(ENCODER, processor=ImageProcessor(24, (24, 24)))
    encoded = cropped.encode(wide)
    assert encoded.box_origin == "nothing, where the crop cuts the object off"
    assert cropped.encode(RECORD).box_origin == ENCODER.encode(wide).box_origin == NAMED


def test_of_several_turns_exactly_the_answers_are_scored():
    encoded = replace(ENCODER, further_turns=True).encode(RECORD)
    ids, scored = encoded.responses[0], encoded.scored[0]
    conversation = rendered(RECORD, RECORD.responses[CHOSEN], RECORD.further_turns)
    assert [*encoded.prefix, *ids] == in_one_go(conversation)
    edges = np.flatnonzero(np.diff([0, *scored, 0]))
    spans = [TOKENIZER.decode(ids[start:end]) for start, end in edges.reshape(-1, 2)]
    assert spans == [" A red cat. It sits.</s>", " Just one.</s>", " Yes, it is!</s>"]


def test_further_turns_follow_the_chosen_answer_only():
    with_turns, without = replace(ENCODER, further_turns=True).encode(RECORD), ENCODER.encode(RECORD)
    np.testing.assert_array_equal(with_turns.responses[1], without.responses[1])
    assert len(with_turns.responses[0]) > len(without.responses[0])


def test_responses_over_the_limit_are_cut_and_counted():
    whole = ENCODER.encode(RECORD)
    longest = max(map(len, whole.responses))
    shortest = min(map(len, whole.responses))
    assert shortest < longest
    for limit, truncated in [(longest, 0), (longest - 1, 1), (shortest - 1, 2), (2, 2)]:
        encoded = replace(ENCODER, max_completion_length=limit).encode(RECORD)
        assert encoded.truncated == truncated
        for cut, full, scored in zip(encoded.responses, whole.responses, encoded.scored, strict=True):
            np.testing.assert_array_equal(cut, full[:limit])
            assert scored.shape == cut.shape


def test_the_image_is_fitted_and_the_key_object_placed_in_it():
    encoded = ENCODER.encode(RECORD)
    assert encoded.image.shape == (24, 24, 3) and encoded.image.dtype == np.uint8
    # 40 x 30 pixels become 24 x 24: padded by 5 above and below, scaled by 0.6.
    np.testing.assert_allclose(encoded.box, [2.4, 6.0, 12.0, 18.0], rtol=1e-6)
    assert encoded.box_origin == "box of an object the texts name"


def test_the_records_id_hashes_its_key():
    assert ENCODER.encode(RECORD).record_id == zlib.crc32(b"line 7")


def with_responses(**responses):
    return replace(RECORD, responses=responses)


@pytest.mark.parametrize(
    "encoder, record, problem, remedy",
    [
        (
            replace(ENCODER, max_prompt_length=12),
            RECORD,
            r"the prompt is \d+ tokens long, 4 of them the images', and the limit is 12",
            "raise data.max_prompt_length",
        ),
        (ENCODER, with_responses(chosen="A cat."), "there is no 'rejected' response", "add a 'rejected'"),
        (ENCODER, with_responses(rejected="A cat."), "there is no 'chosen' response", "add a 'chosen'"),
        (
            ENCODER,
            with_responses(chosen=" \n", rejected="A."),
            "the 'chosen' response is empty",
            "give it a text",
        ),
        (
            ENCODER,
            replace(RECORD, question="What is <image> about?"),
            "holds 2 <image> placeholders for 1 images",
            "take <image> out of the question",
        ),
        (
            ENCODER,
            with_responses(chosen="An <image> of a cat.", rejected="A."),
            "<image> placeholder",
            "take <image> out of",
        ),
        (
            replace(ENCODER, further_turns=True),
            replace(RECORD, further_turns=(Turn("And <image>?", "Yes."),)),
            "<image> placeholder",
            "take <image> out of",
        ),
    ],
    ids=[
        "prompt too long",
        "no rejected",
        "no chosen",
        "empty",
        "image in question",
        "in answer",
        "in a turn",
    ],
)
def test_what_cannot_be_used_is_refused_with_the_records_name(encoder, record, problem, remedy):
    with pytest.raises(DataError, match=problem) as caught:
        encoder.encode(record, "pairs.jsonl")
    assert str(caught.value).startswith("pairs.jsonl, line 7: ")
    assert remedy in caught.value.remedy and "\n" not in str(caught.value)


def test_a_template_without_a_place_for_the_image_is_refused():
    tokenizer = tiny_tokenizer.__wrapped__()
    tokenizer.chat_template = tokenizer.chat_template.replace("<image>\n", "")
    with pytest.raises(DataError, match="holds 0 <image> placeholders"):
        replace(ENCODER, tokenizer=tokenizer).encode(RECORD)


def test_a_template_that_rewrites_the_prompt_once_answered_is_refused():
    tokenizer = tiny_tokenizer.__wrapped__()
    tokenizer.chat_template = (
        "{% if not add_generation_prompt %}Answered: {% endif %}" + tokenizer.chat_template
    )
    with pytest.raises(DataError, match="renders the prompt differently once it is answered"):
        replace(ENCODER, tokenizer=tokenizer).encode(RECORD)


# --- no image, several, turns before the question ------------------------------------------------------


def messages_before(record):
    """The conversation up to the answer, as chat templates take it."""
    system = {"role": "system", "content": [{"type": "text", "text": record.system}]}
    messages = [system] if record.system else []
    asked = [*record.history, Turn(record.question, "")]
    for i, turn in enumerate(asked):
        images = [{"type": "image"}] * (len(record.images) if i == 0 else 0)
        messages.append({"role": "user", "content": [*images, {"type": "text", "text": turn.question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return messages[:-1]


@pytest.mark.parametrize("system", ["", "Be brief."])
@pytest.mark.parametrize("history", [(), (Turn("Who?", "Me."), Turn("Why?", "So."))])
@pytest.mark.parametrize("images", [0, 1, 3])
def test_a_prompt_has_its_images_and_the_turns_before(images, history, system):
    record = replace(RECORD, images=RECORD.images * images, history=history, system=system)
    encoder = replace(ENCODER, max_images=3, max_prompt_length=120)
    encoded, before = encoder.encode(record), messages_before(record)
    prompt = TOKENIZER.apply_chat_template(before, tokenize=False, add_generation_prompt=True)
    assert encoded.prefix.tolist() == in_one_go(prompt)
    for ids, role in zip(encoded.responses, (CHOSEN, REJECTED), strict=True):
        answer = {"role": "assistant", "content": [{"type": "text", "text": record.responses[role]}]}
        whole = TOKENIZER.apply_chat_template([*before, answer], tokenize=False)
        assert [*encoded.prefix, *ids] == in_one_go(whole)
        assert ids[-1] == TOKENIZER.eos_token_id
    assert all(scored.all() for scored in encoded.scored)
    assert encoded.image.shape == (images, 24, 24, 3)
    np.testing.assert_array_equal(encoded.layout, 1 + np.arange(images * NUM_IMAGE_TOKENS))


def test_a_record_without_an_image_is_black_beside_others_that_have_one():
    encoded = ENCODER.encode(replace(RECORD, images=()))
    assert encoded.image.shape == (24, 24, 3) and not encoded.image.any() and encoded.layout is None
    assert IMAGE_ID not in encoded.prefix and encoded.box_origin == "nothing, where there is no image"
    assert not encoded.box.any()


def test_tiles_of_several_images_follow_each_other():
    """Of an image in tiles, 0 in a layout is the newline, and what follows counts on from image to image."""
    anyres = replace(ENCODER, processor=ImageProcessor(24, (24, 24), pinpoints=((24, 48), (48, 48))))
    wide, tall = (Pixels(np.zeros(size, np.uint8)) for size in ((20, 40, 3), (48, 48, 3)))
    alone = [anyres.layout([image.size]) for image in (wide, tall)]
    both = replace(anyres, max_images=2, max_prompt_length=120).encode(replace(RECORD, images=(wide, tall)))
    tiles = 1 + 2, 1 + 4
    assert len(both.image) == sum(tiles)
    moved = np.where(alone[1], alone[1] + tiles[0] * NUM_IMAGE_TOKENS, 0)
    np.testing.assert_array_equal(both.layout, np.concatenate([alone[0], moved]))
    assert both.layout.max() < 1 + sum(tiles) * NUM_IMAGE_TOKENS


def test_more_images_than_are_read_are_refused():
    with pytest.raises(DataError, match="line 7: there are 2 images and at most 1 are read; raise data"):
        ENCODER.encode(replace(RECORD, images=RECORD.images * 2))


def test_a_template_that_leaves_the_system_message_out_is_refused():
    tokenizer = tiny_tokenizer.__wrapped__()
    said = "{% for part in message['content'] %}{{ part['text'] }} {% endfor %}"
    assert said in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(said, "", 1)
    with pytest.raises(DataError, match="the model's chat template leaves the system message out"):
        replace(ENCODER, tokenizer=tokenizer).encode(replace(RECORD, system="Be brief."))


def test_an_image_that_cannot_be_read_is_the_records_fault():
    broken = replace(RECORD, images=(ImageBytes(b"no image", "a.jpg"),))
    with pytest.raises(DataError, match=r"pairs.jsonl, line 7: names an image that cannot be read: a\.jpg"):
        ENCODER.encode(broken, "pairs.jsonl")


# --- the LLaVAs' own templates -------------------------------------------------------------------------


def words_as_llamas():
    """A tokenizer that puts the blank before a word into the word's token, as Llama's and Mistral's do."""
    model = Tokenizer(models.BPE(byte_fallback=True))
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "<s>", "</s>", "<image>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    words = "USER: ASSISTANT: [INST] [/INST] A red cat. What is in the image? How many? Just one. Yes, it is!"
    others = "<<SYS>>\\n Be brief. A blue dog, 狗. Sure? <\\s> _"
    model.train_from_iterator([words] * 9 + [others], trainer)
    model.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )


@pytest.mark.parametrize("make", [tiny_tokenizer.__wrapped__, words_as_llamas])
@pytest.mark.parametrize("system", ["", "Be brief."])
@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("template", TEMPLATES)
def test_with_the_llavas_own_templates_prompt_and_answer_are_the_whole_render(template, turns, system, make):
    tokenizer = make()
    tokenizer.chat_template = TEMPLATES[template]
    limits = {"max_prompt_length": 400, "max_completion_length": 400}
    encoder = replace(ENCODER, tokenizer=tokenizer, further_turns=turns, **limits)
    encoded = encoder.encode(replace(RECORD, system=system))
    messages = messages_before(replace(RECORD, system=system))
    answered = [Turn("", RECORD.responses[CHOSEN]), *(RECORD.further_turns if turns else ())]
    for i, turn in enumerate(answered):
        if i:
            messages.append({"role": "user", "content": [{"type": "text", "text": turn.question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    whole = tokenizer.apply_chat_template(messages, tokenize=False).rstrip().removesuffix("<\\s>")
    whole = whole if whole.endswith("</s>") else whole + "</s>"
    image, end = tokenizer.convert_tokens_to_ids("<image>"), tokenizer.eos_token_id
    repeats = {image: NUM_IMAGE_TOKENS}
    expected = [i for token in tokenizer(whole)["input_ids"] for i in [token] * repeats.get(token, 1)]
    ids, scored = encoded.responses[0], encoded.scored[0]
    assert [*encoded.prefix, *ids] == expected
    assert ids[-1] == end and scored[-1] and ids[-2] != end
    # What counts are the answers, each with its end where the template writes one, and nothing of a question.
    said = tokenizer.decode(ids[scored], skip_special_tokens=True).replace("<\\s>", "")
    assert "".join(said.split()) == "".join("".join(turn.answer.split()) for turn in answered)


@given(
    question=texts,
    answers=st.tuples(texts, texts),
    turns=st.lists(st.tuples(texts, texts), max_size=2),
    further=st.booleans(),
    limit=st.integers(3, 40),
)
@settings(max_examples=40, deadline=None)
def test_lengths_are_those_of_the_encoded_record_and_take_no_pixels(question, answers, turns, further, limit):
    record = replace(
        RECORD,
        question=question,
        responses=dict(zip((CHOSEN, REJECTED), answers, strict=True)),
        further_turns=tuple(Turn(*turn) for turn in turns),
    )
    encoder = replace(ENCODER, further_turns=further, max_completion_length=limit)
    encoded = encoder.encode(record)
    blind = replace(record, images=(ImageBytes(b"no image at all"),))
    expected = len(encoded.prefix), max(len(ids) for ids in encoded.responses)
    assert encoder.lengths(blind) == encoder.lengths(record) == expected


def test_lengths_of_an_image_in_tiles_need_its_header_only():
    processor = ImageProcessor((24, 24), (24, 24), pinpoints=((24, 48), (48, 24), (48, 48)))
    encoder = replace(ENCODER, processor=processor)
    for shape in ((30, 40, 3), (90, 20, 3), (48, 48, 3)):
        with io.BytesIO() as file:
            Image.fromarray(np.zeros(shape, np.uint8)).save(file, "jpeg")
            whole = file.getvalue()
        record = replace(RECORD, images=(ImageBytes(whole),), objects=())
        cut = replace(record, images=(ImageBytes(whole[:-4]),))
        assert encoder.lengths(cut)[0] == len(encoder.encode(record).prefix)


@pytest.mark.parametrize(
    "changed, problem",
    [
        ({"responses": {CHOSEN: "A cat."}}, "there is no 'rejected' response"),
        ({"question": "x " * 300}, "prompts are never cut"),
        ({"images": RECORD.images * 2}, "there are 2 images"),
    ],
)
def test_a_record_that_cannot_be_encoded_has_no_lengths_either(changed, problem):
    with pytest.raises(DataError, match=problem):
        ENCODER.lengths(replace(RECORD, **changed))
