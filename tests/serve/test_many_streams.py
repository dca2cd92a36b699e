"""A thousand streams at once: each answer is the one that the same seed gives alone."""

import asyncio
import json

import pytest

from herdlm.generate import SamplingParams
from tests.serve.conftest import running
from tests.serve.workers.test_backend import eventually

STREAMS = 1000
TOKENS = 8


async def stream(host, port, seed):
    """One streamed completion over a connection of its own: its text, by HTTP as it stands on the wire."""
    body = json.dumps(
        {"model": "flagship", "prompt": f"Server {seed % 7}", "max_tokens": TOKENS, "seed": seed, "stream": True}
    )
    reader, writer = await asyncio.open_connection(host, port, limit=2**20)
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    writer.write(f"{head}\r\nconnection: close\r\n\r\n{body}".encode())
    text, ids, reason, done = "", set(), None, False
    async for line in reader:
        if line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            (choice,) = chunk["choices"]
            text, reason = text + choice["text"], choice["finish_reason"] or reason
            ids.add(chunk["id"])
        done = done or line.startswith(b"data: [DONE]")
    writer.close()
    assert done and len(ids) == 1 and reason == "length", (seed, ids, reason)
    return text


@pytest.mark.timeout(600)
def test_a_thousand_streams_are_none_lost_or_mixed_up(folder, engine_apart):
    with running(folder) as server:
        prompts = [server.text.text_prompt(f"Server {seed % 7}") for seed in range(STREAMS)]
        params = [
            SamplingParams(max_tokens=TOKENS, seed=seed, stop_tokens=server.text.stop_tokens) for seed in range(STREAMS)
        ]
        host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")

        async def all_of_them():
            return await asyncio.gather(*(stream(host, int(port), seed) for seed in range(STREAMS)))

        told = asyncio.run(all_of_them())
        eventually(lambda: not server.engine.busy and not server.service.concurrency.samples)
        assert (server.engine.pool.references > 0).sum() == 0
    # In small batches, as if alone: what else is in a batch must not matter.
    alone = [
        completions[0].text
        for begin in range(0, STREAMS, 20)
        for completions in engine_apart.generate(prompts[begin : begin + 20], params[begin : begin + 20])
    ]
    assert told == alone
    assert len(set(told)) > 0.9 * STREAMS
