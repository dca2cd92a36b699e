"""What the stories of word problems are about: people, things, and what happens to things."""

from __future__ import annotations

from dataclasses import dataclass

SHE = [
    "Mia",
    "Lena",
    "Aisha",
    "Sofia",
    "Nora",
    "Ines",
    "Priya",
    "Hana",
    "Clara",
    "Zoe",
    "Amara",
    "Elif",
    "Ruth",
    "Maya",
    "Lucia",
    "Anya",
    "Freya",
    "Rosa",
    "Leila",
    "Tara",
    "Yuki",
    "Greta",
    "Dalia",
    "Esther",
    "Nadia",
    "Wanda",
    "Carmen",
    "Ebba",
    "Joan",
    "Farah",
    "Ming",
    "Olga",
    "Petra",
    "Salma",
    "Vera",
    "Ida",
    "Kiara",
    "Bianca",
    "Thea",
    "Rania",
]
HE = [
    "Omar",
    "Jonas",
    "Felix",
    "Mateo",
    "Ravi",
    "Kenji",
    "Daniel",
    "Pavel",
    "Samir",
    "Tom",
    "Kofi",
    "Hugo",
    "Arjun",
    "Leo",
    "Nils",
    "Victor",
    "Bilal",
    "Diego",
    "Emil",
    "Ivan",
    "Peter",
    "Oscar",
    "Chen",
    "Malik",
    "Joel",
    "Sven",
    "Tariq",
    "Ben",
    "Marco",
    "Yusuf",
    "Abel",
    "Caleb",
    "Dmitri",
    "Elias",
    "Farid",
    "Goran",
    "Henry",
    "Igor",
    "Jamal",
    "Karl",
]


@dataclass(frozen=True, slots=True)
class Thing:
    """Things that can be counted.

    Attributes:
        items: their name in the plural.
        holders: what they are kept in, in the plural.
        kinds: two kinds of them, as words before the name.
        gains, losses: what somebody did when they became more or fewer; ``{n}`` is the number, ``{items}`` the name,
            ``{other}`` another person.
    """

    items: str
    holders: str
    kinds: tuple[str, str]
    gains: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    edible: bool = False


GAINS = (
    "bought {n} more {items}",
    "got {n} more {items} from {other}",
    "was given {n} more {items} by {other}",
    "received {n} {items} from {other}",
)
LOSSES = ("gave {n} {items} to {other}", "gave {n} of the {items} away", "sold {n} of the {items}")

THINGS = (
    Thing("apples", "baskets", ("red", "green"), ("picked {n} more {items}",), ("used {n} {items} for baking",), True),
    Thing(
        "marbles", "jars", ("blue", "striped"), ("won {n} {items} in a game against {other}",), ("lost {n} {items}",)
    ),
    Thing(
        "stamps", "albums", ("old", "foreign"), ("found {n} {items} on letters",), ("swapped {n} {items} for a coin",)
    ),
    Thing("pencils", "boxes", ("sharp", "blunt"), ("found {n} more {items} in a drawer",), ("wore out {n} {items}",)),
    Thing("books", "shelves", ("thick", "thin"), ("borrowed {n} more {items}",), ("returned {n} {items} to {other}",)),
    Thing("eggs", "cartons", ("brown", "white"), ("collected {n} more {items}",), ("broke {n} {items}",), True),
    Thing(
        "shells", "buckets", ("smooth", "rough"), ("gathered {n} more {items} at the beach",), ("dropped {n} {items}",)
    ),
    Thing("stickers", "packs", ("shiny", "plain"), ("earned {n} more {items}",), ("stuck {n} {items} on a notebook",)),
    Thing("cookies", "tins", ("chocolate", "oat"), ("baked {n} more {items}",), ("ate {n} of the {items}",), True),
    Thing("flowers", "vases", ("yellow", "white"), ("cut {n} more {items}",), ("threw {n} wilted {items} away",)),
    Thing("beads", "bags", ("glass", "wooden"), ("found {n} more {items}",), ("threaded {n} {items} on a string",)),
    Thing("cards", "stacks", ("new", "worn"), ("won {n} more {items}",), ("traded {n} {items} for a toy",)),
    Thing("bottles", "crates", ("full", "empty"), ("brought {n} more {items}",), ("carried {n} {items} away",)),
    Thing("tomatoes", "crates", ("ripe", "unripe"), ("harvested {n} more {items}",), ("cooked {n} {items}",), True),
    Thing("photos", "albums", ("color", "black-and-white"), ("took {n} more {items}",), ("deleted {n} {items}",)),
    Thing("candles", "boxes", ("tall", "short"), ("made {n} more {items}",), ("burned {n} {items}",)),
    Thing("chairs", "rows", ("wooden", "plastic"), ("set up {n} more {items}",), ("folded up {n} {items}",)),
    Thing("tickets", "envelopes", ("day", "evening"), ("printed {n} more {items}",), ("handed out {n} {items}",)),
    Thing("buttons", "tins", ("round", "square"), ("cut off {n} {items} from old coats",), ("sewed on {n} {items}",)),
    Thing("fish", "tanks", ("small", "large"), ("caught {n} more {items}",), ("set {n} {items} free",)),
    Thing("oranges", "crates", ("sweet", "sour"), ("picked {n} more {items}",), ("squeezed {n} {items}",), True),
    Thing(
        "nails", "boxes", ("long", "short"), ("found {n} more {items} in the shed",), ("used {n} {items} for a fence",)
    ),
    Thing("tiles", "stacks", ("gray", "blue"), ("ordered {n} more {items}",), ("laid {n} {items} in the kitchen",)),
    Thing(
        "seeds", "packets", ("sunflower", "pumpkin"), ("saved {n} {items} from last year",), ("planted {n} {items}",)
    ),
    Thing("balloons", "bags", ("red", "silver"), ("blew up {n} more {items}",), ("popped {n} {items} by accident",)),
    Thing("coins", "jars", ("silver", "copper"), ("saved {n} more {items}",), ("spent {n} {items}",)),
    Thing("muffins", "trays", ("blueberry", "lemon"), ("baked {n} more {items}",), ("served {n} {items}",), True),
    Thing("magazines", "piles", ("sports", "science"), ("ordered {n} more {items}",), ("recycled {n} {items}",)),
    Thing("pears", "bowls", ("ripe", "hard"), ("picked {n} more {items}",), ("peeled {n} {items} for a salad",), True),
    Thing("bricks", "pallets", ("red", "gray"), ("fetched {n} more {items}",), ("used {n} {items} for a wall",)),
    Thing("letters", "trays", ("long", "short"), ("sorted {n} more {items}",), ("delivered {n} {items}",)),
    Thing("plates", "stacks", ("deep", "flat"), ("washed {n} more {items}",), ("broke {n} {items}",)),
    Thing("potatoes", "sacks", ("large", "small"), ("dug up {n} more {items}",), ("peeled {n} {items}",), True),
    Thing(
        "ribbons", "rolls", ("silk", "cotton"), ("bought {n} {items} at a fair",), ("tied {n} {items} around gifts",)
    ),
)

SOLD = (
    ("notebooks", "notebook", 2, 6),
    ("pens", "pen", 1, 4),
    ("shirts", "shirt", 8, 25),
    ("loaves of bread", "loaf of bread", 2, 5),
    ("tickets", "ticket", 5, 18),
    ("plants", "plant", 3, 15),
    ("sandwiches", "sandwich", 3, 8),
    ("caps", "cap", 6, 14),
    ("puzzles", "puzzle", 7, 20),
    ("bottles of juice", "bottle of juice", 2, 5),
    ("towels", "towel", 5, 16),
    ("mugs", "mug", 4, 12),
    ("lamps", "lamp", 12, 40),
    ("paintbrushes", "paintbrush", 2, 7),
    ("bags of rice", "bag of rice", 3, 11),
    ("toy cars", "toy car", 2, 9),
    ("scarves", "scarf", 6, 19),
    ("chairs", "chair", 15, 45),
)
"""What shops sell: plural, singular, lowest and highest price."""

WORKERS = (
    ("baker", "bakes", "loaves"),
    ("tailor", "sews", "buttonholes"),
    ("gardener", "plants", "bulbs"),
    ("printer", "prints", "posters"),
    ("potter", "makes", "bowls"),
    ("mechanic", "checks", "bicycles"),
    ("painter", "paints", "fence posts"),
    ("carpenter", "builds", "stools"),
    ("typist", "types", "pages"),
    ("farmhand", "fills", "sacks"),
    ("florist", "ties", "bouquets"),
    ("clerk", "stamps", "forms"),
    ("machine", "fills", "bottles"),
    ("robot", "packs", "parcels"),
)
VEHICLES = (
    ("cyclist", "rides", 12, 28),
    ("train", "travels", 60, 140),
    ("bus", "drives", 30, 70),
    ("truck", "drives", 50, 80),
    ("walker", "walks", 3, 6),
    ("boat", "sails", 10, 30),
    ("runner", "runs", 8, 15),
    ("ferry", "sails", 15, 35),
)
PLACES = ("school", "library", "theater", "sports club", "camp", "museum", "village", "factory", "hotel", "office")
CONVERSIONS = (
    ("minutes", "hours", 60),
    ("days", "weeks", 7),
    ("hours", "days", 24),
    ("months", "years", 12),
    ("seconds", "minutes", 60),
    ("eggs", "dozens of eggs", 12),
    ("centimeters", "meters", 100),
    ("grams", "kilograms", 1000),
    ("cents", "dollars", 100),
    ("meters", "kilometers", 1000),
    ("milliliters", "liters", 1000),
)
"""Small unit, large unit, and how many small ones make a large one."""
