"""The chat templates that come with the LLaVAs on the hub, as far as their texts go."""

_IMAGES = "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"


def _texts(after: str = "") -> str:
    parts = "{% for part in message['content'] if part['type'] == 'text' %}"
    return parts + "{{ part['text'] }}" + after + "{% endfor %}"


# LLaVA-1.5 and 1.6-Vicuna: a blank behind every text, no end of sequence.
VICUNA = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'].upper() }}: {% endif %}"
    + _IMAGES
    + "{% if message['role'] != 'assistant' %}"
    + _texts(" ")
    + "{% else %}{% generation %}"
    + _texts(" ")
    + "{% endgeneration %}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def mistral(end: str) -> str:
    """LLaVA-1.6-Mistral's; published with two ends of an answer, one of them a slip of the pen."""
    return (
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}<<SYS>>\n{{ message['content'][0]['text'] }}\n<</SYS>>\n\n"
        "{% elif message['role'] == 'user' %}[INST] " + _IMAGES + _texts() + " [/INST]"
        "{% else %} {{ message['content'][0]['text'] }}" + end + " {% endif %}{% endfor %}"
    )


TEMPLATES = {
    "1.5 and 1.6-vicuna": VICUNA,
    "1.6-mistral": mistral("</s>"),
    "1.6-mistral, first": mistral("<\\s>"),
}
