"""Sources behind HTTP, from a server that gives parts of files and from one that does not."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from herdlm.base.errors import InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.sources.find import find_sources
from tests.curate.crawls import Write, page, record, small_crawl, zipped
from tests.curate.sources.test_sources import read

pytest.importorskip("aiohttp")


@contextmanager
def serving(files: dict[str, bytes], *, parts: bool) -> Iterator[tuple[str, list[str]]]:
    """(address, what was asked for) of a server of some files."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            content = files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if parts else None
            asked.append(f"{self.command} {self.path} {wanted and wanted[0]}")
            if wanted:
                total, begin = len(content), int(wanted[1])
                content = content[begin : int(wanted[2]) + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{begin + len(content) - 1}/{total}")
            else:
                self.send_response(200)
            if parts:
                self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"one"')
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_served_in_parts_is_divided_into_shards(write: Write) -> None:
    # Above fsspec's block size, so that the reader of one shard does not happen to fetch all of it.
    crawl = zipped(*small_crawl(), *(record(f"https://x.example/{i}", page(f"{i} " * 9)) for i in range(40)))
    local = read(write("c.warc.gz", crawl))
    with serving({"/c.warc.gz": crawl}, parts=True) as (address, asked):
        (file,) = find_sources([f"{address}/c.warc.gz"], CurateConfig())
        assert (file.name, file.bytes, file.seekable) == ("c.warc.gz", len(crawl), True)
        assert '"one"' in file.identity
        assert read(f"{address}/c.warc.gz", shard_megabytes=len(crawl) / 5e6) == local
    assert any("bytes=" in request and "bytes=0-" not in request for request in asked)


def test_a_file_served_only_whole_is_read_as_a_stream(write: Write) -> None:
    crawl = zipped(*small_crawl())
    local = read(write("c.warc.gz", crawl))
    with serving({"/c.warc.gz": crawl}, parts=False) as (address, _):
        assert read(f"{address}/c.warc.gz", shard_megabytes=len(crawl) / 5e6) == local


def test_a_list_of_paths_names_files_of_its_server() -> None:
    paths = "crawl-data/C/segments/1/a.warc.gz\ncrawl-data/C/segments/2/b.warc.gz\n"
    files = {f"/crawl-data/C/segments/{n}/{x}.warc.gz": zipped(*small_crawl()) for n, x in ((1, "a"), (2, "b"))}
    with serving({"/crawl-data/C/warc.paths": paths.encode(), **files}, parts=True) as (address, _):
        found = find_sources([f"{address}/crawl-data/C/warc.paths"], CurateConfig())
        assert [file.path for file in found] == [address + path for path in files]


def test_a_file_that_is_not_served_is_the_users_error() -> None:
    with (
        serving({}, parts=True) as (address, _),
        pytest.raises(InputError, match=r"source http://.*/gone\.warc\.gz does not exist"),
    ):
        find_sources([f"{address}/gone.warc.gz"], CurateConfig())
