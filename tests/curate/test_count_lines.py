"""Lines travel to where they are counted: each key with the row of its document, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from herdlm.curate import shuffle
from herdlm.curate.count_lines import ScatterLinesTask, scatter_lines


def test_every_line_of_every_page_that_is_left_is_scattered_once(tmp_path: Path) -> None:
    rows, lines = [3, 4, 7, 9], [[5, 2**63], [5], [], [8, 9]]
    digests = [1, None, 2, 3]  # row 4 was dropped by a rule for single pages, row 9 is dropped here
    columns = {"row": pa.array(rows), "digest": pa.array(digests, pa.uint64())}
    pages = tmp_path / "pages.parquet"
    pq.write_table(pa.table({**columns, "lines": pa.array(lines, pa.list_(pa.uint64()))}), pages)
    dropped, scattered = tmp_path / "dropped.npy", tmp_path / "scattered.npy"
    shuffle.save(np.array([[9], [3]]), dropped)
    scatter_lines(ScatterLinesTask((pages,), (dropped,), 2, scattered))
    found = [shuffle.gather([scattered], partition).tolist() for partition in range(2)]
    assert found == [[(5, 3)], [(2**63, 3)]]
