"""The one configuration of the built-in world."""

from dataclasses import dataclass, fields

_PROBABILITIES = (
    "cooccurrence",
    "prior_mentions",
    "duplicates",
    "colour_words",
    "size_words",
    "caption_first",
    "existence_questions",
    "swap_fraction",
    "preference_questions",
)


@dataclass(frozen=True)
class WorldConfig:
    """Everything that fixes a world: equal configs give equal records, on any machine and in any order.

    Attributes:
      seed: of every random draw; worlds of different seeds share no scene.
      image_size: side of the square images in pixels; scenes and texts do not depend on it.
      min_objects: fewest distinct categories in a scene.
      max_objects: most distinct categories in a scene; more than `min_objects`, so that a biased scene
        that still lacks one category has room for an anchor and its partner.
      max_anchors: most anchors of a biased scene (more only where `min_objects` demands them).
      popularity_exponent: an anchor comes from the pair of rank r with weight r ** -popularity_exponent.
      cooccurrence: probability that an anchor's partner is in a biased scene too.
      duplicates: probability that a category has two instances, alike in colour and size.
      min_visible: fraction of every object's area that other objects leave visible.
      grid: centres of objects lie on this many lines a side (a small tower learns shapes sooner when they
        come at few offsets from its patches); 0 puts them anywhere.
      prior_mentions: probability that the biased annotator imagines an anchor's absent partner, and says
        so in the caption and when asked for it.
      colour_words: probability that a mention names the colour.
      size_words: probability that a mention of a small or a large object names the size.
      max_sentences: most sentences of a caption.
      questions_per_record: question-answer turns of a supervised record beside its caption.
      existence_questions: share of them that ask whether something is there; the others ask for a number, a
        colour or a relation.
      caption_first: probability that the caption is the first turn of a supervised record; otherwise it
        stands at a random place.
      swap_fraction: share of preference pairs whose hallucination replaces a true object; in the others
        it is added to them.
      preference_questions: share of preference records that ask whether one object is there, not for a
        caption.
      probes_per_split: yes/no probes of an evaluation record in each split, half of them "yes".

    Raises:
      ValueError: where a field is out of its range; the message names the field and the range.
    """

    seed: int = 0
    image_size: int = 64
    min_objects: int = 2
    max_objects: int = 5
    max_anchors: int = 3
    popularity_exponent: float = 0.5
    cooccurrence: float = 0.8
    duplicates: float = 0.1
    min_visible: float = 0.7
    grid: int = 12
    prior_mentions: float = 0.5
    colour_words: float = 0.2
    size_words: float = 0.1
    max_sentences: int = 2
    questions_per_record: int = 3
    existence_questions: float = 0.55
    caption_first: float = 0.5
    swap_fraction: float = 0.5
    preference_questions: float = 0.0
    probes_per_split: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            value, whole = getattr(self, field.name), field.type is int
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise ValueError(
                    f"WorldConfig.{field.name} must be {'an integer' if whole else 'a number'}, not {value!r}"
                )
        for name in _PROBABILITIES:
            self._require(name, 0 <= getattr(self, name) <= 1, "a probability, from 0 to 1")
        self._require(
            "existence_questions", self.existence_questions > 0, "above 0: no other kind is endless"
        )
        self._require("seed", self.seed >= 0, "0 or more")
        self._require("image_size", self.image_size >= 32, "at least 32 pixels, else objects are mere dots")
        self._require("min_objects", self.min_objects >= 2, "at least 2: a lone object has no context")
        self._require(
            "max_objects",
            self.min_objects < self.max_objects <= 6,
            f"more than min_objects ({self.min_objects}) and at most 6, else objects hide each other",
        )
        self._require("max_anchors", self.max_anchors >= 1, "at least 1")
        self._require("popularity_exponent", self.popularity_exponent >= 0, "0 (no favourites) or more")
        self._require("min_visible", 0.5 <= self.min_visible <= 0.9, "from 0.5 to 0.9")
        self._require("grid", self.grid == 0 or self.grid >= 6, "0 (anywhere) or at least 6 lines")
        self._require("max_sentences", self.max_sentences >= 1, "at least 1")
        self._require("questions_per_record", 0 <= self.questions_per_record <= 8, "from 0 to 8")
        self._require(
            "swap_fraction",
            self.swap_fraction == 1 or self.max_sentences >= 2,
            "1 where max_sentences is 1: pairs with an added object need a second sentence",
        )
        self._require(
            "probes_per_split",
            self.probes_per_split % 2 == 0 and 0 <= self.probes_per_split <= 2 * self.min_objects,
            f"even and at most {2 * self.min_objects} (twice min_objects): half ask for present objects",
        )

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ValueError(f"WorldConfig.{name} is {getattr(self, name)!r}; it must be {rule}")
