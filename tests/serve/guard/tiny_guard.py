"""A guard of 100,000 weights, trained in seconds on made-up dialogs in the protocol: two lists of words are harmful."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from herdlm.model.config import ModelConfig
from herdlm.model.hf import save_folder
from herdlm.model.losses import target_logprobs
from herdlm.model.transformer import build, initialize
from herdlm.serve.guard.guard import guard_message
from herdlm.tokens.batch import Piece, lay_out
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.tokenizer import PAD, Tokenizer, TokenizerConfig, train_tokenizer
from herdlm.train.objectives import hidden_states

HARM = {"S1": ["stab", "murder", "maim"], "S9": ["poison", "warhead", "anthrax"]}
HARMLESS = ["garden", "weather", "bicycle", "recipe", "library", "music"]
ASKED = ["Tell me about {}", "How do I get a {} today", "Write a story with {} in it", "What is {} , please"]
SAID = ["I like {}", "Here is what I know of {} : it is old", "Of course , {} it is"]
STEPS, ROWS = 160, 8

Turns = list[tuple[str, str]]


def dialogs(seed: int, count: int) -> list[tuple[Turns, str]]:
    """Turns with the guard's right answer. An answer may be harmful where its question is not."""
    draw = np.random.default_rng(seed)
    made: list[tuple[Turns, str]] = []
    for _ in range(count):
        kind = str(draw.choice(["safe", "safe", "S1", "S9"]))
        word = str(draw.choice(HARMLESS if kind == "safe" else HARM[kind]))
        turns = [("User", str(draw.choice(ASKED)).format(word))]
        if draw.random() < 0.5:
            before = str(draw.choice(HARMLESS))
            turns = [("User", str(draw.choice(ASKED)).format(before)), ("Agent", str(draw.choice(SAID)).format(word))]
        made.append((turns, "safe" if kind == "safe" else f"unsafe\n{kind}"))
    return made


def train_guard(folder: Path, *, max_seq_len: int = 512) -> Path:
    """Write the guard's folder."""
    rows = dialogs(0, 400)
    texts = [f"{guard_message(turns)['content']}\n{answer}" for turns, answer in rows]
    tokenizer = train_tokenizer(texts * 2, TokenizerConfig(vocab_size=560))
    model = build(
        ModelConfig(
            vocab_size=560,
            dim=64,
            layers=2,
            heads=4,
            kv_heads=2,
            ffn_dim=128,
            max_seq_len=max_seq_len,
            rope_theta=10_000.0,
        )
    )
    initialize(model, 0, std=0.08)
    pieces = [_piece(tokenizer, turns, answer) for turns, answer in rows]
    longest = max(len(piece.weights) for piece in pieces)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    draw = np.random.default_rng(1)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, (step + 1) / 20) * (1 - step / STEPS)
        chosen = draw.integers(0, len(pieces), ROWS)
        batch, _ = lay_out([[pieces[i]] for i in chosen], longest, tokenizer.special(PAD))
        here = batch.weights.flatten() > 0
        loss = -target_logprobs(model, hidden_states(model, batch)[here], batch.targets.flatten()[here]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    save_folder(model, folder)
    tokenizer.save(folder)
    return folder


def _piece(tokenizer: Tokenizer, turns: Turns, answer: str) -> Piece:
    dialog = ChatFormat.of(tokenizer).render([guard_message(turns), {"role": "assistant", "content": answer}])
    return Piece(np.array(dialog.tokens), np.array(dialog.weights[1:], np.float32))
