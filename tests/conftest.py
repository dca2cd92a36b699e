"""Fixtures that many tests share: one thread, a small tokenizer, a small model."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import settings

from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Transformer, build, initialize
from herdlm.tokens.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

torch.set_num_threads(1)
settings.register_profile("any machine", deadline=None)  # by default 200 ms an example
settings.load_profile("any machine")
# Shells start what they run in the background without it, and tests of Ctrl-C would press in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)

TEXT = (
    "The package manager installs a package from the archive and configures it. A user may list the files of a "
    "package, remove it, or ask which package a file belongs to; 2024 saw 1,234 uploads and 56 removals.\n\n"
    "Each server keeps a log. When the disk is full the service stops, and the administrator has to free some space "
    "before it starts again. It's simple: don't let the disk fill up, they'd say, and we'll all sleep well.\n"
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A tokenizer of 400 entries trained on a paragraph."""
    return train_tokenizer([TEXT], TokenizerConfig(vocab_size=400))


def small_model(seed: int = 0, **changes) -> Transformer:
    """A model of a few thousand weights with random values large enough to tell tokens apart."""
    shape = dict(vocab_size=400, dim=32, layers=2, heads=4, kv_heads=2, ffn_dim=64, max_seq_len=256, rope_theta=1000.0)
    model = build(ModelConfig(**(shape | changes)))
    initialize(model, seed, std=0.1)
    return model


@pytest.fixture
def model() -> Transformer:
    """A small model, made anew for each test."""
    return small_model()


@pytest.fixture
def any_start(monkeypatch) -> None:
    """Lets a run resume from other initial weights, to show that the checkpoint has everything."""
    monkeypatch.setattr("herdlm.train.work.hash_weights", lambda model: "")
