"""How long /health takes while hostile bodies are sent to a real server, and how its memory grows.

    python benchmarks/hostile_requests.py MODEL

Starts ``herdlm serve``, asks for /health/live every few milliseconds, and meanwhile sends one body after another.
Prints for each: the status, the seconds until the answer, and the slowest and median /health. The first line is that of
a server without other requests, on the same machine at the same time.
"""

import json
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx

MIB = 2**20
JSON = {"content-type": "application/json"}
PARTS = '{"model": "m", "messages": [{"role": "user", "content": [%s]}]}'


def chat(**more):
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2} | more)


def with_pattern(pattern):
    schema = {"type": "object", "properties": {"x": {"type": "string", "pattern": pattern}}, "required": ["x"]}
    return chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})


BODIES = {
    "8 MB of parts": ("v1/chat/completions", PARTS % ",".join(['{"type":"text","text":""}'] * 300_000)),
    "as many parts as are parsed": ("v1/chat/completions", PARTS % ",".join(['{"type":"text","text":""}'] * 95_000)),
    "8 MB of wrong parts": ("v1/chat/completions", PARTS % ",".join(["1"] * 4_000_000)),
    "90,000 messages": (
        "v1/chat/completions",
        '{"model": "m", "messages": [' + ",".join(['{"role":"user","content":""}'] * 90_000) + "]}",
    ),
    "8 MB of one text": ("v1/chat/completions", chat(messages=[{"role": "user", "content": "ab " * (2 * MIB)}])),
    "8 MB of look-alikes": ("v1/chat/completions", chat(messages=[{"role": "user", "content": "<|" * (4 * MIB - 99)}])),
    "8 MB to tokenize": ("tokenize", json.dumps({"prompt": "ab" * (4 * MIB - 99)})),
    "200,000 ids": ("v1/completions", '{"model": "m", "prompt": [' + ",".join(["7"] * 199_000) + "]}"),
    "a pattern": ("v1/chat/completions", with_pattern("(?:.*a.{0,300}){20}")),
    "another pattern": ("v1/chat/completions", with_pattern("^(([a-z]{1,50}[0-9]{1,50}){1,50}[.-]){1,50}$")),
    "deep nesting": ("v1/chat/completions", "[" * (8 * MIB)),
}


class Health(threading.Thread):
    """Asks for /health/live all the time."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.seconds = url, []

    def run(self):
        with httpx.Client(timeout=120) as client, suppress(httpx.TransportError):  # when the server ends
            while True:
                began = time.perf_counter()
                client.get(f"{self.url}/health/live").raise_for_status()
                self.seconds.append(time.perf_counter() - began)
                time.sleep(0.005)

    def take(self):
        taken, self.seconds = self.seconds, []
        return taken or [0.0]


def resident(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / MIB


def main():
    command = [sys.executable, "-m", "herdlm.cli", "serve", f"m={sys.argv[1]}", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        line = server.stderr.readline()
        url = line.split("answers at ")[1].split("/v1")[0]
        threading.Thread(target=server.stderr.read, daemon=True).start()
        health = Health(url)
        health.start()
        time.sleep(3)
        report("nothing", "-", 0.0, health.take(), server.pid)
        for name, (path, body) in BODIES.items():
            began = time.perf_counter()
            answer = httpx.post(
                f"{url}/{path}", content=body, headers={"content-type": "application/json"}, timeout=300
            )
            seconds = time.perf_counter() - began
            time.sleep(0.3)
            report(name, answer.status_code, seconds, health.take(), server.pid)
        server.terminate()


def report(name, status, seconds, health, pid):
    print(
        f"{name:30} status {status}, answered in {seconds:6.2f} s; /health: slowest {1000 * max(health):7.1f} ms, "
        f"median {1000 * statistics.median(health):5.1f} ms of {len(health)}; server {resident(pid):.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
