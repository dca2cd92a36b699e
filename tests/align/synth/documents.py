"""Documents of invented facts, of which each paragraph can be asked about."""

TOWNS = ("Arvik", "Belsund", "Corvane", "Dunmore", "Eskdal", "Farnholt", "Gelbrück", "Hartwick")
GOODS = ("copper", "amber", "timber", "linen", "salt", "barley", "slate", "honey")


def paragraph(number: int) -> str:
    """A paragraph about a town, some 60 words long."""
    town, goods = TOWNS[number % 8], GOODS[number % 8]
    return (
        f"The town of {town} lies beside a wide river in the northern hills. It was founded in {1200 + 37 * number} by "
        f"merchants who traded {goods} with the villages of the coast. Most of its houses are built of red stone and "
        f"have small windows because the winters are long and cold. About {310 + 11 * number} families live there "
        f"today, and every autumn they hold a market in the old square behind the church."
    )


def document(first: int = 0, count: int = 4) -> str:
    """A document of paragraphs."""
    return "\n\n".join(paragraph(number) for number in range(first, first + count))


def write(folder, *documents):
    """Files of one document each, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(documents):
        (folder / f"{number}.txt").write_text(text, "utf-8")
    return folder
