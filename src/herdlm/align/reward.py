"""The reward model: the current policy with a scalar head, trained to rank answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from herdlm.align.bank.answers import as_messages
from herdlm.align.bank.tasks import Question
from herdlm.base.progress import Progress
from herdlm.model.transformer import Transformer, build, initialize
from herdlm.tokens.batch import Piece, lay_out
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.packing import pack_whole
from herdlm.tokens.preferences import PreferenceBatches
from herdlm.train.objectives import hidden_states

ROWS_AT_ONCE = 64


def reward_model_from(policy: Transformer, seed: int) -> Transformer:
    """A reward model with the policy's body and a new head."""
    config = policy.config.model_copy(update={"head": "score", "tied_embeddings": False})
    model = build(config, next(policy.parameters()).device)
    initialize(model, seed)
    model.model.load_state_dict(policy.model.state_dict())
    return model


@torch.no_grad()
def rank_accuracy(model: Transformer, pairs: PreferenceBatches) -> list[bool]:
    """For each pair, whether the chosen answer scores above the rejected one."""
    device = next(model.parameters()).device
    ranked: list[bool] = []
    for first in range(0, len(pairs.pairs), ROWS_AT_ONCE):
        batch = pairs.batch(range(first, min(first + ROWS_AT_ONCE, len(pairs.pairs)))).to(device)
        hidden = hidden_states(model, batch)
        chosen, rejected = (model.scores(hidden[batch.columns[f"{side}_end"]]) for side in ("chosen", "rejected"))
        ranked += (chosen > rejected).tolist()
    return ranked


@torch.no_grad()
def score_answers(
    model: Transformer,
    format: ChatFormat,
    questions: Sequence[Question],
    answers: Sequence[Sequence[str]],
    *,
    seq_len: int,
    title: str,
) -> list[list[float]]:
    """A reward for every answer, read at the end of its turn. Equal answers to a question are scored once.

    Answers too long for a row of ``seq_len`` tokens, which training could not use either, score minus infinity.
    """
    pad, device = format.pad, next(model.parameters()).device
    distinct = [(q, answer) for q, given in enumerate(answers) for answer in sorted(set(given))]
    pieces = []
    for q, answer in distinct:
        rendered = format.render([*as_messages(questions[q]), {"role": "assistant", "content": answer}])
        pieces.append(Piece([*rendered.tokens, pad], [0.0] * len(rendered.tokens)))  # type: ignore[arg-type]
    fitting = [i for i, piece in enumerate(pieces) if len(piece.tokens) - 1 <= seq_len]
    rows = pack_whole([len(pieces[i].tokens) - 1 for i in fitting], seq_len)
    scores: dict[tuple[int, str], float] = {}
    with Progress(title, len(rows), "rows") as progress:
        for first in range(0, len(rows), ROWS_AT_ONCE):
            some = [[fitting[i] for i in row] for row in rows[first : first + ROWS_AT_ONCE]]
            batch, places = lay_out([[pieces[i] for i in row] for row in some], seq_len, pad)
            hidden = hidden_states(model, batch.to(device))
            ends = torch.tensor([place.end for row in places for place in row])
            values = model.scores(hidden[ends]).tolist()
            for item, value in zip((i for row in some for i in row), values, strict=True):
                scores[distinct[item]] = value
            progress.advance(len(some))
    return [[scores.get((q, answer), float("-inf")) for answer in given] for q, given in enumerate(answers)]
