"""Which response a reply prefers, whatever words it uses."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_jax.rewards.reading import read

# What is said, and which response is preferred; 0 is a tie, None no verdict.
REPLIES = [
    # The paper's own example (Figure 8).
    (
        "Based on the image content, Response 2 is better and more helpful. The image shows a person "
        "surfing in the ocean, not a swimming pool. The surfer is riding a wave, and there are no other "
        "people visible in the image. The description accurately reflects the content of the image and does "
        "not include any hallucinations or irrelevant details.",
        2,
    ),
    ("Response 1 is better.", 1),
    ("**Response 1** is better because it is accurate.", 1),
    ("Response one is better", 1),
    ("2", 2),
    (" 1.\n", 1),
    ("Response 2", 2),
    ("Response 2.\nIt describes the dog.", 2),
    ('{"better": 2}', 2),
    ('{"verdict": "Response 1", "reason": "no bench"}', 1),
    ("Better: 1", 1),
    ("Answer: Response 1", 1),
    ("The answer is Response 2.", 2),
    ("Verdict: 2", 2),
    ("My choice: Response 1.", 1),
    ("Better response: Response 2", 2),
    ("In my opinion, the winner is response #1", 1),
    ("The second response is better than the first response.", 2),
    ("The first response is worse than the second.", 2),
    ("I prefer Response 1 over Response 2.", 1),
    ("I'd go with the second answer.", 2),
    ("The better response is Response 2.", 2),
    ("Between Response 1 and Response 2, the better is Response 1.", 1),
    ("Compared to Response 1, Response 2 is the better answer.", 2),
    ("Which response is better? Response 1.", 1),
    ("Response 1, which mentions the dog, is better.", 1),
    ("Response 2 better describes the image.", 2),
    ("Response 1 provides a better description of the scene than Response 2 does.", 1),
    ("Response 1 offers, in my view, the more accurate and better description.", 1),
    ("Both are accurate, but Response 2 is better.", 2),
    ("Response 1 is more detailed, but Response 2 is more accurate.", 2),
    ("Response 1 contains fewer hallucinations than Response 2.", 1),
    ("Response 1 is less accurate than Response 2.", 2),
    ("Response 1 has more hallucinations.", 2),
    ("Response 1 hallucinates a bench, while Response 2 is accurate; I choose Response 2.", 2),
    ("Response 1 would be better if it mentioned the cat. Response 2 is better.", 2),
    ("Response 2 is not accurate and Response 1 is better", 1),
    ("Response 2 is better than response 1 because response 1 mentions a dog and response 2 does not.", 2),
    ("Both responses are equally good.", 0),
    ("Response 1 and Response 2 are equally good.", 0),
    ("It's a tie.", 0),
    ("Neither response is better.", 0),
    ("Response 2 is no better than Response 1.", 0),
    ("It is hard to say whether Response 1 or Response 2 is better.", None),
    (
        "You should generate an answer where you indicate whether Response 1 or Response 2 is better.",
        None,
    ),
    ("Response 1 isn't better than Response 2.", None),
    ("Response 1 is better. Response 2 is better.", None),
    ("Response 1: A dog. Response 2: A cat.", None),
    ("Response 1 describes a dog.", None),
    ("A dog sits there.", None),
    ("Response 1 is not the better one, Response 2 is better.", 2),
    ("I do not prefer Response 1.", None),
    ("Response 2 is better, no doubt.", 2),
    ("Response 10 is better.", None),
    # Scores, and what is lower.
    ("I would rate Response 1 a 4 and Response 2 an 8.", None),
    ("I would rate Response 1 higher than Response 2.", 1),
    ("I would rate Response 1 lower than Response 2.", 2),
    ("I'd rate Response 2 much lower.", 1),
    ("I would not rate Response 1 higher than Response 2.", None),
    ("I would rate Response 1 as worse.", 2),
    ("I rate Response 1 as the less accurate one.", 2),
    ("Response 1 is the less preferred one.", 2),
    # What is denied, doubted, wished for or left open.
    ("One might prefer Response 1 for its detail. However, Response 2 is right about the cat.", None),
    ("Some would prefer Response 1. I would choose Response 2.", 2),
    ("While Response 1 may be better written, I'd prefer Response 2.", 2),
    ("I would say Response 2 is better.", 2),
    ("I wouldn't choose Response 1.", None),
    ("I would choose neither Response 1 nor Response 2.", None),
    ("I would prefer Response 1 to mention the dog.", None),
    ("I prefer Response 2 to Response 1.", 2),
    ("Response 1 is far from being the better answer.", None),
    ("Response 2 falls short of being better than Response 1.", None),
    ("Response 1 fails to be better than Response 2.", None),
    ("Response 2 is nowhere near better than Response 1.", None),
    ("Response 1 is too vague to be better.", None),
    ("Response 1 needs a better description of the dog.", None),
    ("Response 1 could be better.", None),
    ("Response 1 would have been better.", None),
    ("Response 2 could have been better with fewer words, but it's still the better one.", None),
    ("At first glance Response 1 is better.", None),
    ("I doubt that Response 1 is better.", None),
    ("There is no doubt that Response 1 is better.", 1),
    ("Without a doubt, Response 2 is better.", 2),
    ("Not only is Response 1 more accurate, it is also better.", 1),
    ("Is Response 1 better than Response 2? No.", None),
    # Words that call no response better.
    ("Response 1 is better at hallucinating objects.", None),
    ("Response 1 is better at describing the dog.", 1),
    ("Response 1 is second-best.", None),
    ("Response 1 is at best vague.", None),
    ("Response 1 includes a better-known landmark that is not there.", None),
    ("Response 1 mentions the best-selling car.", None),
    ("Response 1 mentions the winning team, Response 2 says that the team wins.", None),
    ("Response 1 had better mention the dog.", None),
    ("Response 1 has better grammar, but Response 2 is more accurate.", 2),
    ("Response 1 is better organized. Response 2 contains less hallucination.", 2),
    ("The colours are better captured in Response 1, yet Response 2 is more accurate.", 2),
    ("Response 1 says that the cat is best friends with the dog. Response 2 is more accurate.", 2),
    ("Response 2 is worse worded.", None),
    ("Response 1 is better than nothing.", None),
    ("Response 1 is better than Response 2 at inventing objects.", None),
    ("Response 1 does a better job than Response 2.", 1),
    ("The better response is 2.", 2),
    # What is conceded, or denied in other words.
    ("While Response 1 reads better, Response 2 is more accurate.", 2),
    ("Although Response 1 is better in style, Response 2 has less hallucination.", 2),
    ("While Response 1 is good, Response 2 is better.", 2),
    ("It is false that Response 1 is better.", None),
    ("I disagree that Response 1 is better.", None),
    ("It is hard to say that Response 1 is better than Response 2.", None),
    ("The better one: Response 2.", 2),
    ("The better one is one that mentions the dog.", None),
    ("The first one is better.", 1),
    ("The first one is better lit.", None),
    ("Response 1 outperforms Response 2.", 1),
    ("Response 2 does not outperform Response 1.", None),
    ("Response 2 is great and it outperforms Response 1.", None),
    ("Response 1 is better--it says more.", 1),
    ("", None),
    (" \n", None),
]


@pytest.mark.parametrize(("reply", "expected"), REPLIES, ids=[reply[:40] for reply, _ in REPLIES])
def test_a_reply_is_read_as_it_is_meant(reply, expected):
    reading = read(reply)
    assert reading.better == (expected or None)
    assert bool(reading.problem) == (expected is None)
    assert reading.reply == reply


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("", "the reply is empty"),
        ("A dog sits there.", "the reply names neither response"),
        ("Response 1 describes a dog.", "the reply does not say which response is better"),
        (
            "Response 1 is better. Response 2 is better.",
            "the reply calls each of the responses the better one",
        ),
    ],
)
def test_what_cannot_be_read_is_said(reply, problem):
    assert read(reply).problem == problem


PIECES = st.sampled_from(
    "Response_1 Response_2 response_#1 the_second_response is was better worse best than and but while not "
    "both equally good . , ; : ? \n ** 1 2 one more less accurate hallucinations I prefer whether or if "
    "a_tie neither because Answer: would be ’ n't { }".split(" ")
)
EXCHANGED = {"1": "2", "2": "1", "one": "two", "two": "one", "second": "first", "first": "second"}


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=14))
def test_exchanging_the_responses_exchanges_what_is_read(pieces):
    words = " ".join(pieces).replace("_", " ")
    exchanged = "".join(EXCHANGED.get(part, part) for part in _tokens(words))
    one, other = read(words), read(exchanged)
    assert other.better == (None if one.better is None else 3 - one.better)
    assert other.problem == one.problem


@settings(max_examples=200, deadline=None)
@given(st.text() | st.lists(PIECES, max_size=30).map(" ".join))
def test_any_text_gives_a_verdict_a_tie_or_a_problem(reply):
    reading = read(reply)
    assert reading.better in (1, 2, None) and not (reading.better and reading.problem)
    assert read(f"*{reply}*").better == reading.better or "*" in reply or not reply.isascii()


def _tokens(words):
    token = ""
    for character in words:
        if character.isalnum() and token.isalnum():
            token += character
            continue
        yield token
        token = character
    yield token
