"""Small tokenizers of our own, for models that are trained from scratch.

Byte-level BPE: every text can be encoded, whatever it was trained on, so a model of the built-in world can be
shown real captions. Its chat template is LLaVA-1.5's without the system sentence.
"""

from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

IMAGE_TOKEN = "<image>"
_SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% elif message['role'] == 'system' %}"
    "{% for part in message['content'] %}{{ part['text'] }} {% endfor %}"
    "{% else %} ASSISTANT:"
    "{% for part in message['content'] %} {{ part['text'] }}{% endfor %}{{ eos_token }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def train_tokenizer(corpus: Iterable[str], vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer with LLaVA's special tokens and chat template.

    Args:
      corpus: texts as they stand in questions and answers.
      vocab_size: most tokens, special ones and the 256 bytes counted.
    """
    tokenizer = _byte_level_bpe(_as_rendered(corpus), [*_SPECIAL.values(), IMAGE_TOKEN], vocab_size)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **_SPECIAL,
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def train_text_tokenizer(
    corpus: Iterable[str], max_length: int, vocab_size: int = 512
) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer that frames a text as CLIP's does: its start, the text, its end.

    Args:
      corpus: texts as they will be read.
      max_length: most tokens of a text, its frame counted.
      vocab_size: most tokens, special ones and the 256 bytes counted.
    """
    start, end = frame = ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = _byte_level_bpe(corpus, frame, vocab_size)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(token, tokenizer.token_to_id(token)) for token in frame]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def _byte_level_bpe(corpus: Iterable[str], special: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _as_rendered(corpus: Iterable[str]) -> Iterator[str]:
    """Texts with the blank that the template puts before an answer, so that merges fit what will be read."""
    yield "USER: ASSISTANT:"
    for text in corpus:
        yield text
        yield f" {text}"
