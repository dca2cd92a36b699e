"""What is asked for: texts about topics whose facts we have, and open requests that only a model can answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from herdlm.align.synth.draw import Draw
from herdlm.align.synth.texts import lines, table


@dataclass(frozen=True, slots=True)
class Topic:
    """A subject with sentences that are true of it, each of which stands on its own.

    Attributes:
        name: as it stands in a request, such as "honeybees".
        called: as the language of the sentences has it.
        language: code of the sentences' language, and its name in English.
    """

    name: str
    facts: tuple[str, ...]
    called: str = ""
    language: tuple[str, str] = ("en", "English")


@dataclass(frozen=True, slots=True)
class Genre:
    """A form of text.

    Attributes:
        asked: what stands in a request.
        openings, closings: sentences around the facts; "" for none. ``{topic}`` is the topic.
    """

    asked: str
    openings: Sequence[str] = ("",)
    closings: Sequence[str] = ("",)


<<<<<<< HEAD
GENRES = (
    Genre("a short text"),
    Genre("a brief article"),
    Genre("an entry for a children's encyclopedia", ("", "Have you ever wondered about {topic}?")),
    Genre("a few facts", ("Here are some facts about {topic}.", "")),
    Genre(
        "a message to a friend",
        ("Hi there! I just read about {topic}.", "Hello! You asked me about {topic}.", "Hey! I learned a lot today."),
        ("See you soon!", "Talk to you later!", "Take care!"),
    ),
    Genre(
        "an e-mail to a colleague",
        ("Good morning! Here is what I found on {topic}.", "Hello! These are my notes on {topic}."),
        ("Best regards", "Many thanks and best wishes", ""),
    ),
    Genre(
        "a speech for a school class",
        ("Good morning everyone! Today I will speak about {topic}.", "Dear class! My subject today is {topic}."),
        ("Thank you for listening.", "Now you know more about {topic}."),
    ),
    Genre(
        "a radio announcement",
        ("You are listening to the morning show.", "And now a minute about {topic}."),
        ("Stay tuned!", "That was our minute of knowledge."),
    ),
    Genre("study notes", ("Notes on {topic}.", "")),
    Genre("a label for a museum"),
    Genre(
        "a blog post",
        ("Today my blog is about {topic}.", "Welcome back to my blog!", "Let us look at {topic}."),
        ("What do you think?", "Leave a comment below!", "Until next time!"),
    ),
    Genre("a diary entry", ("Dear diary! Today I read about {topic}.",), ("Good night!", "I want to know more.")),
    Genre("a summary for busy readers", ("The main points about {topic} are these.", "")),
    Genre("the text of a leaflet", ("What you should know about {topic}.", ""), ("Ask us for more.", "")),
    Genre("an introduction", ("", "This is a short introduction to {topic}.")),
    Genre(
        "a letter to a grandmother",
        ("Dear Grandma! You like {topic} and so I write to you about it.", "Dear Grandma! I thought of you today."),
        ("With love from all of us.", "Many greetings!"),
    ),
)

WRITTEN = (
    "Write {genre} about {topic}.",
    "I need {genre} about {topic}.",
    "Please write {genre} on the subject of {topic}.",
    "Could you write {genre} about {topic}?",
    "Compose {genre} that deals with {topic}.",
    "Write {genre} about {topic} for {audience}.",
    "For {audience}, write {genre} about {topic}.",
    "Can you prepare {genre} about {topic} for {audience}?",
    "Draft {genre} about {topic}. It is for {audience}.",
    "My task is {genre} about {topic}. Please do it for me.",
)
TOLD = (
    "Tell me something about {topic}.",
    "What should I know about {topic}?",
    "Explain {topic} to {audience}.",
    "Describe {topic}.",
    "Give me information on {topic}.",
    "What is interesting about {topic}?",
    "I am curious about {topic}. What can you tell me?",
    "Teach me the basics of {topic}.",
    "We are talking about {topic} at dinner. What could I contribute?",
    "What would you tell {audience} about {topic}?",
    "Help me prepare for a quiz about {topic}.",
    "I have to give a talk on {topic}. What can I say?",
)
AUDIENCES = (
    "ten-year-olds",
    "my neighbors",
    "tourists",
    "people who learn English",
    "a curious child",
    "beginners",
    "retired people",
    "my students",
    "new members of our club",
    "readers of a local newspaper",
    "visitors of an exhibition",
    "someone who has never heard of it",
    "my little sister",
    "a group of teenagers",
)

OPEN = (
    "Write a story about {hero} who {event}.",
    "Tell a tale in which {hero} {event}.",
    "Write a poem about {scene}.",
    "Write the lyrics of a song about {scene}.",
    "Write an advertisement for {product}.",
    "Invent a slogan and a short pitch for {product}.",
    "Write a review of {product}.",
    "Write a letter of complaint about {trouble}.",
    "Write an e-mail to my landlord about {trouble}.",
    "How should I react to {trouble}?",
    "Draft an invitation to {occasion}.",
    "Write a speech for {occasion}.",
    "Help me plan {occasion}.",
    "Write a thank-you note after {occasion}.",
    "Plan a trip of {days} days to {city}.",
    "What can a family do in {city} on a rainy weekend?",
    "Describe an imaginary walk through {city}.",
    "Write a cover letter for a job as {job}.",
    "Describe a working day of {job}.",
    "Which skills does {job} need, and how can I learn them?",
    "Write interview questions for {job}.",
    "Write a dialog between {job} and {hero}.",
    "What speaks for and against {issue}?",
    "Convince my mayor of {issue}.",
    "Write a letter to the editor about {issue}.",
    "Explain to my grandfather how {skill} works.",
    "Give me advice: I want to get better at {skill}.",
    "Write a beginner's guide to {skill}.",
    "Make up a joke about {hero}.",
    "Write a riddle whose solution is {scene}.",
)
FILLERS: Mapping[str, tuple[str, ...]] = {
    "hero": (
        "a retired sailor",
        "a shy robot",
        "two rival bakers",
        "a lost dog",
        "a young astronaut",
        "a night watchman",
        "an honest thief",
        "a forgetful wizard",
        "a street musician",
        "a talking teapot",
        "a clockmaker's daughter",
        "a tired superhero",
        "a lighthouse keeper",
        "a stubborn donkey",
        "a small-town detective",
        "a curious crow",
    ),
    "event": (
        "finds an old key",
        "misses the last train",
        "wins a strange prize",
        "learns to dance",
        "must tell the truth",
        "gets a letter from the past",
        "moves to the coast",
        "opens a tiny shop",
        "loses a shadow",
        "saves a bridge",
        "meets an old friend",
        "wakes up in another century",
        "repairs a broken radio",
        "hides from the rain",
    ),
    "scene": (
        "the first snow",
        "an empty station",
        "an old umbrella",
        "a harvest moon",
        "the smell of fresh bread",
        "a crowded market",
        "a sleepless night",
        "a paper boat",
        "a thunderstorm at sea",
        "a garden in October",
        "an echo",
        "the last day of school",
        "a candle",
        "morning fog",
        "a broken mirror",
        "the wind",
    ),
    "product": (
        "a folding bicycle",
        "a solar backpack",
        "an alarm clock that makes tea",
        "a pair of hiking boots",
        "a cookbook for students",
        "a waterproof notebook",
        "a family board game",
        "a quiet vacuum cleaner",
        "a language course",
        "a tent for two",
        "a lunch box",
        "a reading lamp",
        "a garden swing",
        "a pocket telescope",
    ),
    "trouble": (
        "noise at night",
        "a parcel that never came",
        "a broken heater",
        "a delayed flight",
        "a wrong invoice",
        "mold in the bathroom",
        "a rude waiter",
        "a bus that is always late",
        "a leaking roof",
        "a stolen bicycle",
        "a canceled concert",
        "a barking dog next door",
        "a phone that breaks after a week",
    ),
    "occasion": (
        "a birthday party",
        "the opening of a bookshop",
        "a farewell dinner",
        "a village festival",
        "a wedding",
        "a class reunion",
        "a charity run",
        "a chess tournament",
        "a street party",
        "a retirement party",
        "a science fair",
        "a housewarming",
        "a poetry evening",
        "an anniversary",
    ),
    "days": ("two", "three", "four", "five", "seven"),
    "city": (
        "Lisbon",
        "Kyoto",
        "Nairobi",
        "Oslo",
        "Montreal",
        "Prague",
        "Lima",
        "Istanbul",
        "Edinburgh",
        "Hanoi",
        "Vienna",
        "Marrakesh",
        "Melbourne",
        "Dublin",
        "Naples",
        "Havana",
    ),
    "job": (
        "a gardener",
        "a nurse",
        "a software tester",
        "a bus driver",
        "a pastry chef",
        "a librarian",
        "a carpenter",
        "a translator",
        "a lifeguard",
        "a park ranger",
        "an accountant",
        "a sound engineer",
        "a florist",
        "a surveyor",
    ),
    "issue": (
        "school uniforms",
        "a ban on fireworks",
        "free public transport",
        "working from home",
        "zoos",
        "a four-day working week",
        "homework",
        "cars in the city center",
        "self-service checkouts",
        "daylight saving time",
        "electric scooters",
        "more trees along the streets",
        "longer library hours",
        "pets at the office",
    ),
    "skill": (
        "online banking",
        "composting",
        "playing the ukulele",
        "public speaking",
        "first aid",
        "crossword puzzles",
        "baking sourdough",
        "time management",
        "knitting",
        "bird watching",
        "video calls",
        "small talk",
        "sketching",
    ),
}
=======
TEXTS = table("constraints/requests.toml")
GENRES = tuple(Genre(**each) for each in TEXTS["genres"])
PLAIN = GENRES[0]
>>>>>>> synth


@cache
def topics() -> tuple[Topic, ...]:
    """The topics with facts in English."""
    return tuple(Topic(name, facts) for name, facts in _blocks("constraints/topics.txt"))


@cache
def foreign_topics() -> tuple[Topic, ...]:
    """The topics with facts in other languages."""
    found = []
    for head, facts in _blocks("constraints/languages.txt"):
        language, name, called = (part.strip() for part in head.split("|"))
        code, _, spoken = language.partition(" ")
        found.append(Topic(name, facts, called, (code, spoken)))
    return tuple(found)


@cache
def questions() -> tuple[tuple[str, str, str], ...]:
    """Questions with the answer yes, no or maybe, and a reason."""
    rows = [line.split("|") for line in lines("constraints/questions.txt")]
    return tuple((question, answer, reason) for question, answer, reason in rows)


def _blocks(name: str) -> list[tuple[str, tuple[str, ...]]]:
    """Headings that begin with "#", each with the lines below it."""
    found: list[tuple[str, list[str]]] = []
    for line in lines(name):
        if line.startswith("#"):
            found.append((line.lstrip("# "), []))
        else:
            found[-1][1].append(line)
    return [(head, tuple(lines)) for head, lines in found]


def open_request(draw: Draw) -> str:
    """A request that only a model can answer."""
    template = draw.one(TEXTS["open"])
    return template.format(**{name: draw.one(choices) for name, choices in TEXTS["fillers"].items()})


def request_about(draw: Draw, topic: str) -> tuple[str, Genre]:
    """A request for a text about a topic, and its form."""
    audience = draw.one(TEXTS["audiences"])
    if draw.chance(0.45):
        return draw.one(TEXTS["told"]).format(topic=topic, audience=audience), PLAIN
    genre = draw.one(GENRES)
    return draw.one(TEXTS["written"]).format(genre=genre.asked, topic=topic, audience=audience), genre
