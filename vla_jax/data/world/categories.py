"""What the world is made of: object categories and their partners, colours, sizes."""

from dataclasses import dataclass

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Category:
    """One kind of object.

    Attributes:
      name: its noun, singular, one word.
      plural: its noun, plural, one word.
      partner: name of the category it keeps company with in the biased scenes.
    """

    name: str
    plural: str
    partner: str


# From the most popular pair to the least: the biased scenes draw pairs by this rank.
_PAIRS = (
    (("cup", "cups"), ("bottle", "bottles")),
    (("house", "houses"), ("tree", "trees")),
    (("cat", "cats"), ("chair", "chairs")),
    (("car", "cars"), ("tent", "tents")),
    (("book", "books"), ("lamp", "lamps")),
    (("boat", "boats"), ("fish", "fish")),
    (("apple", "apples"), ("banana", "bananas")),
    (("flower", "flowers"), ("mushroom", "mushrooms")),
    (("hat", "hats"), ("umbrella", "umbrellas")),
    (("clock", "clocks"), ("key", "keys")),
)

PAIRS: tuple[tuple[Category, Category], ...] = tuple(
    (Category(*first, partner=second[0]), Category(*second, partner=first[0])) for first, second in _PAIRS
)
CATEGORIES: tuple[Category, ...] = tuple(category for pair in PAIRS for category in pair)
CATEGORY: dict[str, Category] = {category.name: category for category in CATEGORIES}

COLOURS: dict[str, RGB] = {
    "red": (214, 32, 38),
    "orange": (247, 133, 18),
    "yellow": (250, 218, 28),
    "green": (36, 150, 54),
    "blue": (34, 84, 214),
    "purple": (138, 48, 172),
    "white": (252, 252, 252),
    "black": (40, 40, 44),
}

# Side of the square an object is drawn in, as a fraction of the image's side.
SIZES: dict[str, float] = {"small": 1 / 4, "medium": 1 / 3, "large": 5 / 12}
# "medium" is what goes without saying.
SIZE_ADJECTIVES = ("small", "large")
