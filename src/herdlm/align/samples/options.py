"""How answers are drawn, and how the answers to a prompt are divided among models and temperatures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """How answers are drawn.

    Attributes:
        samples: answers to each prompt, of all models together.
        temperatures: each model draws with each of them.
        systems: system prompts, of which each prompt gets one by the seed; an empty one stands for none.
        max_tokens: of an answer.
        batch: answers that are drawn together; None: 64 on a CPU, 2,048 on a GPU. Answers of one batch are kept
            together, and sums are rounded by what is in it.

    Raises:
        InputError: a value is out of range, or some answers to a prompt would be equal.
    """

    samples: int = 16
    temperatures: tuple[float, ...] = (0.7,)
    systems: tuple[str, ...] = ()
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"{self.samples} samples of a prompt", "Ask for at least 1")
        if not self.temperatures or not all(0 <= each < math.inf for each in self.temperatures):
            raise InputError(f"temperatures = {self.temperatures}", "Give numbers of 0 (greedy) or more")
        for name, values in (("temperature", self.temperatures), ("system prompt", self.systems)):
            if len(set(values)) < len(values):
                raise InputError(f"a {name} is given twice", "Give each once")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p = {self.top_p}", "Give a probability above 0 and at most 1 (1 turns it off)")
        for key, value in (("max_tokens", self.max_tokens), ("batch", self.batch)):
            if value is not None and value < 1:
                raise InputError(f"{key} = {value}", "Give at least 1")

    def system(self, id: str) -> str:
        """The system prompt of a prompt; empty for none."""
        return self.systems[derive_seed(self.seed, "system", id) % len(self.systems)] if self.systems else ""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the answers to a prompt: how many, of which model (by number), at which temperature."""

    model: int
    temperature: float
    count: int


def parts(id: str, models: int, options: SampleOptions) -> list[Part]:
    """Who answers a prompt how often.

    Every model draws as often at every temperature. What is left over goes to one each, beginning with one that the
    seed and the prompt's id choose, so that over many prompts all get the same.

    Raises:
        InputError: several answers of a model would be drawn at temperature 0, and be equal.
    """
    cells = [(model, temperature) for model in range(models) for temperature in options.temperatures]
    each, left = divmod(options.samples, len(cells))
    first = derive_seed(options.seed, "parts", id) % len(cells)
    made = [
        Part(model, temperature, count)
        for number, (model, temperature) in enumerate(cells)
        if (count := each + ((number - first) % len(cells) < left))
    ]
    if any(part.temperature == 0 and part.count > 1 for part in made):
        raise InputError(
            "several answers of a model at temperature 0 would be equal", "Ask for fewer, or raise the temperature"
        )
    return made


def text_or_file(given: str) -> str:
    """A text, or the text of the file that it names.

    Raises:
        InputError: the file is not UTF-8.
    """
    try:
        if not given or not Path(given).is_file():
            return given
        return Path(given).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{given} is not UTF-8", "Save it as UTF-8") from error
    except OSError:  # a text that is too long for a name
        return given
