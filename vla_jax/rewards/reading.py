"""Which response an annotator's reply prefers.

Table 14 asks for an answer that indicates "whether Response 1 or Response 2 is better", in words of its own.
So clauses are looked for in which a response is called better, worse, or as good as the other. What is said
outright counts before what only suggests it ("more accurate"), and that before a tie. A reply whose clauses
contradict each other, or that has none, prefers nothing, and why is said. What is unclear is no verdict.
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
# "The first one is better than ...", and not "the first one is better lit".
_ORDINAL = re.compile(
    r"\bthe (first|second) one"
    r"(?= is (?:the )?(?:better|best|preferable|superior)(?: than\b| because\b|[.,;]|$))"
)

# What may follow a word that calls a response better or worse as a whole: after "better captured", "better
# grammar", "best friends" or "better than nothing", none is.
_WHOLE = (
    r"(?=\W*$|[ )]*(?:[.,;:=!?(/]|--|<[12]>)|[ )]+(?:-|than <[12]>"
    r"|(?:than (?:the (?:other|first|second)|it|that)"
    r"|is|was|overall|by far|hands down|here|in|on|for|at|as|and|with|by|of|to|over|due|given|not|when"
    r"|(?:describe|reflect|capture|represent|depict|fit|align|answer)s?|match(?:es)?|aligned|grounded"
    rf"|one|two|choice|caption|job|quality|{_NOUN}s?)\b))"
    # "better at hallucinating than <1>", "better than <1> at hallucinating"
    r"(?!(?: than <[12]>)? at (?:first|hallucinat|invent|fabricat|mak|mislead))"
)
# "at best", "had better" call no response better.
_VERDICT = (
    r"(?<!-)(?<!at )(?<!had )(?<!its )(?<!less )(?<!least )(?<!second )"
    rf"(?:better|best|preferred|preferable|superior|winner|winning|wins)\b{_WHOLE}"
)
# "Better: 2", "the better one is 2", "preferred = 1": a number alone counts beside such a word only.
_BARE = re.compile(
    rf"\b({_VERDICT}|verdict|choice)(?: one| two| {_NOUN})?(?: is:? (?=[12])| ?[:=] ?){_VALUE}(?=\W|$)"
)
_ANNOUNCED = re.compile(r"\b(?:verdict|choice|answer)(?: is|:| is:) (<[12]>)")
_RATED = re.compile(
    r"\brated? (<[12]>)(?: as)?(?: (?:much|far|slightly|clearly|somewhat|a bit|a little))? "
    r"(?:(higher|above)|lower|below)\b"
)
_CERTAIN = re.compile(
    r"\b(?:there is )?(?:no|without(?: an?y?)?|beyond(?: an?y?)?) doubt(?: that)?\b|\bnot only\b"
)
# What is weighed, not said.
_HYPOTHETICAL = re.compile(
    rf"\b(?:whether|if|which)\b[^.;,\n]{{0,200}}?{_VERDICT}"  # "whether 1 or 2 is better"
    r"|(?:^|(?<=[.!?;\n]))\W*(?:while|although|though|even though|whereas)\b[^.!?;,\n]*,"  # conceded
    r"|<[12]> (?:or|vs|versus) <[12]>"
    r"|(?:^|(?<=[.!?;\n]))[^.!?;\n]*\?"
    r"|\b(?:could|might|may|should|would) (?:\w+ )?(?:be|have been)\b[^.;\n]*\b(?:if|had|with)\b"
)
_SENTENCES = re.compile(r"[.!?;\n]+")
_CLAUSES = re.compile(r"[.!?;\n]+|\b(?:but|while|whereas|although|though|however|because|since|so)\b")
_PARTS = re.compile(r", |\band\b")
# What denies or leaves open whatever is said after it.
_OPEN = re.compile(
    r"\b(?:not|no|never|neither|nor|hardly|barely|scarcely|cannot|doubt|far from|anything but|nowhere near"
    r"|(?:is|are|was|were|do|does|did|wo|would|could|should|has|have|had)nt"
    r"|(?:falls?|fell) short|(?:fail|attempt)(?:s|ed)? to|tr(?:y|ies|ied) to|too \w+ to|needs?|lacks?"
    r"|may|might|could|(?:would|should) have|(?:some|many|one|two|others?|people|readers?|users?) would"
    r"|at first|initially|(?:false|untrue|incorrect|wrong) (?:that|to)|disagree\w*|(?:hard|difficult) to)\b"
    # What an image shows: "mentions the winning team", "says the team wins".
    r"|\b(?:mention|claim|say|state|report|invent)\w* (?:that )?(?:the|an?) (?:\w+ )?$"
)

_GOOD = re.compile(
    rf"\b{_VERDICT}|(?<=<[12]> )(?:(?:clearly|easily) )?(?:outperforms|surpasses|beats) (?=<[12]>)"
)
_BAD = re.compile(rf"\b(?:(?:worse|worst|inferior)\b{_WHOLE}|(?:less|least) (?:preferred|preferable))")
_SUGGESTS_GOOD = re.compile(
    r"\bmore (?:\w+ and )?(?:accurate|helpful|correct|faithful|factual|truthful|precise)"
    r"|\b(?:less|fewer|no) (?:\w+ )?hallucinat"
)
_SUGGESTS_BAD = re.compile(
    r"\bless (?:\w+ and )?(?:accurate|helpful|correct|faithful|factual|truthful|precise)"
    r"|\bmore (?:\w+ )?hallucinat"
)
_CHOICE = re.compile(
    r"\b(?:prefer|choose|chose|pick|select|favou?r|recommend|go with|vote for)\b"
    r"(?! (?:if|that|it)\b|[^<]*<[12]> to (?!<))"  # "I would prefer <1> to say more"
)
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
    text = _ORDINAL.sub(lambda found: f"<{_NUMBERS[found[1]]}>", text)
    text = _RATED.sub(lambda found: f"{found[1]} is {'better' if found[2] else 'worse'}", text)
    return _CERTAIN.sub(" ", _ANNOUNCED.sub(r"\1 is better", text))


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
        if found is None or _OPEN.search(clause[: found.start()]):
            continue
        before = [mention for mention in mentions if mention.start() < found.start()]
        if before:
            return _number(before[-1][1], says)
        if not re.match(r"\w* ?than\b", clause[found.end() :].strip()):
            return _number(mentions[0][1], says)
    found = _CHOICE.search(clause) if good is _GOOD else None
    if found is not None:
        after = [mention for mention in mentions if mention.start() > found.start()]
        if after and not _OPEN.search(clause[: after[0].start()]):
            return _number(after[0][1])
    return None


def _number(text: str, itself: bool = True) -> Number:
    """The response, or the other one."""
    return 1 if (text == "1") == itself else 2
