"""Which response an annotator's reply prefers.

Table 14 asks for an answer that indicates "whether Response 1 or Response 2 is better", in words of its own.
So clauses are looked for in which a response is called better, worse, or as good as the other. What is said
outright counts before what only suggests it ("more accurate"), and that before a tie. A reply whose clauses
contradict each other, or that has none, prefers nothing, and why is said.
"""

import re
from typing import Literal, NamedTuple

Number = Literal[1, 2]


class Reading(NamedTuple):
    """What was read: the better response as shown, or None for a tie and, with a `problem`, for no verdict.

    `tokens` are those that were billed, in and out.
    """

    better: Number | None
    reply: str = ""
    problem: str = ""
    tokens: tuple[int, int] = (0, 0)


_NUMBERS = {"1": "1", "one": "1", "first": "1", "2": "2", "two": "2", "second": "2"}
_NOUN = r"(?:response|answer|assistant|option|candidate|description)"
_VALUE = r"(1|2|one|two)"
# "Response 1", "response #2", "the second answer", "response (1)"
_MENTION = re.compile(rf"(?:the )?(?:\b{_NOUN} ?[#(:\[]? ?{_VALUE}\b[)\]]?|\b(first|second) {_NOUN}\b)")

_VERDICT = r"(?:better|best|preferred|preferable|superior|winner|winning|wins)"
# "Better: 2", "the better one is 2", "preferred = 1": a number alone counts beside such a word only.
_BARE = re.compile(rf"\b({_VERDICT}|verdict|choice)(?: one)?(?: is)?[ :=]+{_VALUE}(?=\W|$)")
_ANNOUNCED = re.compile(r"\b(?:verdict|choice|answer)(?: is|:| is:) (<[12]>)")
# What is weighed, not said.
_HYPOTHETICAL = re.compile(
    rf"\b(?:whether|if|which)\b[^.;,\n]*?{_VERDICT}"  # "whether 1 or 2 is better"
    r"|<[12]> (?:or|vs|versus) <[12]>"
    r"|\b(?:could|might|may|should|would) (?:\w+ )?(?:be|have been)\b[^.;\n]*\b(?:if|had|with)\b"
)
_SENTENCES = re.compile(r"[.!?;\n]+")
_CLAUSES = re.compile(r"[.!?;\n]+|\b(?:but|while|whereas|although|though|however|because|since|so)\b")
_PARTS = re.compile(r", |\band\b")
_NOT = re.compile(r"\b(?:not|no|never|neither|nor|hardly|cannot|isnt|doesnt|wasnt|dont)\b")

_GOOD = re.compile(rf"\b{_VERDICT}\b")
_BAD = re.compile(r"\b(?:worse|worst|inferior)\b")
_SUGGESTS_GOOD = re.compile(
    r"\bmore (?:\w+ and )?(?:accurate|helpful|correct|faithful|factual|truthful|precise)"
    r"|\b(?:less|fewer|no) (?:\w+ )?hallucinat"
)
_SUGGESTS_BAD = re.compile(
    r"\bless (?:\w+ and )?(?:accurate|helpful|correct|faithful|factual|truthful|precise)"
    r"|\bmore (?:\w+ )?hallucinat"
)
_CHOICE = re.compile(r"\b(?:prefer|choose|chose|pick|select|favou?r|rate|recommend|go with|vote for)\b")
_TIE = re.compile(
    r"\b(?:equally|identical|equivalent|a tie|tied|same (?:quality|accuracy)|(?:no|nothing|not any) better"
    r"|(?:neither|none)\b.*\bbetter|both (?:<[12]> )*(?:responses? )?are)\b"
)


def read(reply: str) -> Reading:
    """What a reply says.

    Args:
      reply: the annotator's words.
    """
    text = _plain(reply)
    if not text.strip():
        return Reading(None, reply, "the reply is empty")
    alone = re.fullmatch(r"\W*(?:<([12])>|([12]))\W*", text)
    if alone:
        return Reading(_number(alone[1] or alone[2]), reply)
    tied = bool(_TIE.search(text))
    said = _HYPOTHETICAL.sub(" ", text)
    clauses = [part for clause in _CLAUSES.split(said) for part in _parts(clause)]
    for good, bad in ((_GOOD, _BAD), (_SUGGESTS_GOOD, _SUGGESTS_BAD)):
        better = {number for clause in clauses if (number := _better(clause, good, bad))}
        if len(better) == 2:
            return Reading(None, reply, "the reply calls each of the responses the better one")
        if better:
            return Reading(better.pop(), reply)
    named = {
        found[1]
        for part in _SENTENCES.split(text)
        if (found := re.fullmatch(r"[^\w:]*<([12])>[^\w:]*", part))
    }
    if len(named) == 1:
        return Reading(_number(named.pop()), reply)
    if tied:
        return Reading(None, reply)
    if not re.search(r"<[12]>", text):
        return Reading(None, reply, "the reply names neither response")
    return Reading(None, reply, "the reply does not say which response is better")


def _plain(reply: str) -> str:
    """Lower case without markup, mentions of a response as <1> and <2>."""
    text = re.sub(r"[*_`\"“”{}]|\\text", "", reply.lower()).replace("’", "'").replace("n't", "nt")
    text = re.sub(r"\bcan ?not\b|\bcant\b", "cannot", re.sub(r"[ \t]+", " ", text))
    text = _MENTION.sub(lambda found: f"<{_NUMBERS[found[1] or found[2]]}>", text)
    text = _BARE.sub(lambda found: f"{found[1]} is <{_NUMBERS[found[2]]}>", text)
    return _ANNOUNCED.sub(r"\1 is better", text)


def _parts(clause: str) -> list[str]:
    """A clause about one response as it is, one about both cut further."""
    return _PARTS.split(clause) if len(set(re.findall(r"<[12]>", clause))) == 2 else [clause]


def _better(clause: str, good: re.Pattern[str], bad: re.Pattern[str]) -> Number | None:
    """The response that a clause prefers, if it does."""
    mentions = list(re.finditer(r"<([12])>", clause))
    if not mentions:
        return None
    # A comparative is said of what stands before it, or where nothing does, of what follows: "<1> is better
    # than <2>", "the better one is <2>"; in "better than <2>" alone, of something unnamed.
    for pattern, says in ((good, True), (bad, False)):
        found = pattern.search(clause)
        if found is None or _denied(clause[: found.start()]):
            continue
        before = [mention for mention in mentions if mention.start() < found.start()]
        if before:
            return _number(before[-1][1], says)
        if not re.match(r"\w* ?than\b", clause[found.end() :].strip()):
            return _number(mentions[0][1], says)
    found = _CHOICE.search(clause) if good is _GOOD else None
    if found is not None and not _denied(clause[: found.start()]):
        after = [mention for mention in mentions if mention.start() > found.start()]
        if after:
            return _number(after[0][1])
    return None


def _denied(before: str) -> bool:
    """Whether what stands before a comparative turns it round."""
    return bool(_NOT.search(before))


def _number(text: str, itself: bool = True) -> Number:
    """The response, or the other one."""
    return 1 if (text == "1") == itself else 2
