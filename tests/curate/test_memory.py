"""Memory of a curation: bounded, and no larger for four times the input.

Needs ``HERDLM_DATA``, a folder with ``web/docs.warc.gz`` and ``web/handbooks.warc.gz``: 9,755 pages of 270 MB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
LIMIT = 3 << 30
# Four times the pages fill caches up and bring large pages together more often; a leak would quadruple what is held.
GROWTH = 1.5


def resident(root: int) -> int:
    """Bytes that a process and all its descendants hold in memory."""
    parents, held = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue  # it has just ended
        pid = int(status.parent.name)
        parents[pid] = int(lines["PPid"])
        held[pid] = int(lines.get("VmRSS", "0 kB").split()[0]) * 1024
    tree, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in tree} - tree
        tree, grown = tree | more, bool(more)
    return sum(held.get(pid, 0) for pid in tree)


def peak(sources: list[Path], out: Path) -> int:
    """The peak of a curation by two workers."""
    command = [sys.executable, "-m", "herdlm.cli", "curate", *map(str, sources), "--out", str(out), "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        highest = 0
        while process.poll() is None:
            highest = max(highest, resident(process.pid))
            time.sleep(0.2)
    assert process.returncode == 0
    return highest


def test_memory_is_bounded_and_flat(tmp_path: Path) -> None:
    if not (data := os.environ.get("HERDLM_DATA")):
        pytest.skip("HERDLM_DATA is not set: the folder with web/docs.warc.gz and web/handbooks.warc.gz")
    crawl = [Path(data) / "web" / f"{name}.warc.gz" for name in ("docs", "handbooks")]
    four_times = []
    for copy in range(4):
        for file in crawl:
            link = tmp_path / f"{copy}" / file.name
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(file)
            four_times.append(link)
    once, often = peak(crawl, tmp_path / "once"), peak(four_times, tmp_path / "often")
    print(f"peak of the process tree: {once / 2**20:.0f} MiB, four times the input {often / 2**20:.0f} MiB")
    assert once < LIMIT
    assert often < LIMIT
    assert often < GROWTH * once
