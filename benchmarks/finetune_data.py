"""Dialogs and pairs of benchmarks/finetune.py: drawn from a seed, or read from a user's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEPS = 4  # different steps, taken in turn
PAD, END = 0, 1
FIRST_WORD = 3
READ = 400  # records of a file that are used
SHORT, LONG = (60, 0.6), (400, 0.5)  # tokens in a dialog: the median and the standard deviation of the logarithm
SHARE_SHORT = 0.7
PROMPT, ANSWER = (60, 0.6), (120, 0.6)  # tokens in the prompt and in each answer of a pair, likewise


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a step holds.

    Attributes:
        seq_len: tokens in a packed row.
        rows: packed rows in a step of fine-tuning.
        pairs: pairs in a step of DPO.
        micro_batch: dialogs in each padded batch of TRL's; a step has as many as its dialogs need.
    """

    seq_len: int
    rows: int
    pairs: int
    micro_batch: int


class IdsFormat:
    """Stands in for a chat format: a message's content is token ids as numbers, and END ends an answer."""

    pad = PAD

    def render(self, messages: Sequence[Any], *, tools: Any = None, first: int = 0) -> Any:
        """As :meth:`herdlm.tokens.chat_format.ChatFormat.render`."""
        from herdlm.tokens.chat import Rendered

        tokens, weights = list[int](), list[float]()
        for number, message in enumerate(messages):
            ids = [int(word) for word in message["content"].split()]
            answers = message["role"] == "assistant"
            ids += [END] * answers
            tokens += ids
            weights += [float(answers and number >= first)] * len(ids)
        return Rendered(tokens, weights, [False] * len(tokens))


def draw_dialogs(vocabulary: int, longest: int, count: int) -> list[Any]:
    """Dialogs of one turn: mostly short instructions, some of several hundred tokens, a third to two thirds answer."""
    import numpy as np

    generator = np.random.default_rng(7)
    dialogs = []
    for _ in range(count):
        median, spread = SHORT if generator.random() < SHARE_SHORT else LONG
        length = int(np.clip(median * np.exp(spread * generator.standard_normal()), 8, longest))
        answer = int(length * generator.uniform(1 / 3, 2 / 3))
        dialogs.append({"messages": [_message(generator, vocabulary, "user", length - answer)]})
        dialogs[-1]["messages"].append(_message(generator, vocabulary, "assistant", answer))
    return dialogs


def draw_pairs(vocabulary: int, longest: int, count: int) -> list[Any]:
    """Pairs of answers to one prompt, each of its own length."""
    import numpy as np

    generator = np.random.default_rng(11)
    pairs = []
    for _ in range(count):
        lengths = [
            int(np.clip(median * np.exp(spread * generator.standard_normal()), 4, longest // 2))
            for median, spread in (PROMPT, ANSWER, ANSWER)
        ]
        sides = zip(("prompt", "chosen", "rejected"), ("user", "assistant", "assistant"), lengths, strict=True)
        pairs.append({name: [_message(generator, vocabulary, role, length)] for name, role, length in sides})
    return pairs


def _message(generator: Any, vocabulary: int, role: str, length: int) -> dict[str, str]:
    ids = generator.integers(FIRST_WORD, vocabulary, length)
    return {"role": role, "content": " ".join(map(str, ids))}


def open_dialogs(model: Path | None, file: Path | None, vocabulary: int, sizes: Sizes) -> Any:
    """The steps of fine-tuning, made as a training makes them: packed rows of whole dialogs."""
    from herdlm.tokens.dialogs import DialogBatches

    made: Any = IdsFormat()
    if file and model:
        made, dialogs = _read("dialogs", model, file, sizes.seq_len)
    else:
        dialogs = draw_dialogs(vocabulary, sizes.seq_len - 2, 32 * STEPS * sizes.rows)
    return DialogBatches(made, dialogs, seq_len=sizes.seq_len, rows_per_step=sizes.rows, epochs=1, seed=3, steps=STEPS)


def open_pairs(model: Path | None, file: Path | None, vocabulary: int, sizes: Sizes) -> tuple[Any, Any, list[Any]]:
    """A chat format, a function from pairs to the steps of DPO, and the pairs."""
    from herdlm.tokens.preferences import PreferenceBatches

    made: Any = IdsFormat()
    if file and model:
        made, pairs = _read("preferences", model, file, sizes.seq_len)
        pairs = pairs[: STEPS * sizes.pairs]
    else:
        pairs = draw_pairs(vocabulary, sizes.seq_len - 3, STEPS * sizes.pairs)

    def steps_of(given: list[Any]) -> Any:
        return PreferenceBatches(
            made, given, seq_len=sizes.seq_len, pairs_per_step=sizes.pairs, epochs=1, seed=3, mask_formatting=False
        )

    return made, steps_of, pairs


def _read(kind: Any, model: Path, file: Path, seq_len: int) -> tuple[Any, list[Any]]:
    from herdlm.data.read import Source, read_records
    from herdlm.tokens.chat_format import ChatFormat

    made = ChatFormat.load(model)
    records, _ = read_records(kind, [Source(file)], chat_format=made, seq_len=seq_len - 2)
    return made, records[:READ]


def ids_and_labels(piece: Any) -> dict[str, list[int]]:
    """A dialog as TRL's trainers take it: ids, and a label for each, -100 where it is no target."""
    ids = piece.tokens.tolist()
    learned = [False, *(piece.weights > 0).tolist()]
    labels = [id if is_target else -100 for id, is_target in zip(ids, learned, strict=True)]
    return {"input_ids": ids, "labels": labels}


def prompt_and_answer(piece: Any) -> tuple[str, str]:
    """A prompt with an answer as two texts, of which :func:`word`'s tokenizer makes the same ids again.

    The answer reaches to the last target; what a template writes after it trains nothing.
    """
    targets = piece.weights.nonzero()[0]
    begin, end = int(targets[0]) + 1, int(targets[-1]) + 2
    texts = [" ".join(map(word, part.tolist())) for part in (piece.tokens[:begin], piece.tokens[begin:end])]
    return f"{texts[0]} ", texts[1]


def word(id: int) -> str:
    """A token's text. No text is a part of another, since transformers looks for special tokens everywhere."""
    return f"<{id}>"
