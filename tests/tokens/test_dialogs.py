"""Epochs of dialogs: each dialog once in a whole one, and a part of one reads that part of them."""

from collections import Counter

import pytest

from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.dialogs import DialogBatches

DIALOGS = [
    {"messages": [{"role": "user", "content": f"file {number}"}, {"role": "assistant", "content": "a log " * number}]}
    for number in range(1, 11)
]


@pytest.mark.parametrize(("epochs", "read"), [(0.4, 4), (1.0, 10), (1.5, 15), (3.0, 30)])
def test_a_part_of_an_epoch_reads_that_part_of_the_dialogs(tokenizer, epochs, read):
    batches = DialogBatches(ChatFormat.of(tokenizer), DIALOGS, seq_len=64, rows_per_step=2, epochs=epochs, seed=5)
    times = Counter(item for rows in batches.plan for row in rows for item in row)
    assert times.total() == read
    assert max(times.values()) - min(times[item] for item in range(10)) <= 1
