"""The annotator's prompt of the study on alignment of vision-language models.

Amirloo et al. 2024, arXiv:2407.02477, Table 14.
"""

from vla_jax.rewards.judging import Shown

INSTRUCTIONS = (
    "The most important part of this task is to choose a response that contains less hallucination. "
    "Everything in the answer should be based on the contents of the image. You are given an image, a "
    "question, and two responses. If the context is about something practical, a helpful response is a "
    "concise response, and not one with irrelevant questions and comments. You are an expert annotator, and "
    "you rate the answer with less hallucination and more helpful information about the image as the better "
    "answer. Less hallucination means every object or attribute of the object, like color and relationship, "
    "is described accurately and as it appears in the image. If something is ambiguous in the image, the "
    "answer should avoid including any details that are not clearly visible in the image. In your response, "
    "you should generate an answer where you indicate whether Response 1 or Response 2 is better and explain "
    "the reason."
)
# Labelled as in the paper's Figure 8. How question and responses follow the instructions it does not print.
TEMPLATE = f"{INSTRUCTIONS}\n\nQuestion: {{question}}\n\nResponse 1: {{first}}\n\nResponse 2: {{second}}"


def prompt(asked: Shown) -> str:
    """All that the annotator reads of a comparison."""
    first, second = asked.responses
    return TEMPLATE.format(question=asked.question, first=first, second=second)
