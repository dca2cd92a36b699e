"""Speed of drawing 8 answers to each of many prompts on one CPU thread: herdlm's engine beside transformers' generate.

    python benchmarks/sampling.py MODEL [--prompts 8] [--tokens 48] [--out benchmarks/results]

Both arms draw the same number of tokens from the same prompts, word problems made up here, at temperature 0.8 from the
whole vocabulary; the end token is held back until the last token. herdlm draws as ``herdlm sample`` does: batches of 64
answers, "auto" precision. transformers runs generate with num_return_sequences=8 on prompts padded to the left, in
float32, in the better of the batch sizes 2 and 8 prompts by a probe of two tokens, and in bfloat16 with fewer prompts
and tokens, since a processor without BF16 units takes very long.
Arms run one after another, on one thread each. Speeds are answers per CPU second, which other processes disturb less
than those per second of wall time, which stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from versions import version

SAMPLES, TEMPERATURE = 8, 0.8
SIZES = (2, 8)  # prompts of a batch of transformers
GOAL = 4.0
THINGS = ("apples", "books", "red pencils", "stamps", "old coins", "sheets of paper", "eggs", "tickets")


def problems(count: int) -> list[str]:
    """Word problems of different lengths."""
    made = []
    for number in range(count):
        thing, a, b = THINGS[number % len(THINGS)], 3 + number, 2 + number % 5
        steps = [f"On day {day + 1} Ann buys {b + day} more {thing}." for day in range(1 + number % 4)]
        made.append(f"Ann has {a} {thing}. {' '.join(steps)} How many {thing} does Ann have now? Show each step.")
    return made


def timed(act: Any) -> dict[str, float]:
    """Seconds of wall and of CPU that a call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def ours(folder: Path, prompts: list[list[int]], tokens: int) -> tuple[dict[str, float], str]:
    """Seconds of herdlm, and its precision."""
    from herdlm.align.samples.asking import ON_CPU, BatchEngines
    from herdlm.evaluate.engines import EngineOptions
    from herdlm.generate import SamplingParams

    engines = BatchEngines(folder, EngineOptions(device="cpu"), ON_CPU)

    def draw(some: list[list[int]], most: int) -> None:
        how = [
            SamplingParams(max_tokens=most, min_tokens=most, n=SAMPLES, temperature=TEMPERATURE, seed=number)
            for number in range(len(some))
        ]
        found = dict(engines.generate(some, how))
        assert all(len(each.tokens) == most for own in found.values() for each in own), "herdlm stopped early"

    draw(prompts[:1], 4)  # compiles kernels
    seconds = timed(lambda: draw(prompts, tokens))
    engines.close()
    return seconds, engines.compute


def theirs(
    folder: Path, prompts: list[list[int]], tokens: int, dtype: str, sizes: tuple[int, ...]
) -> tuple[dict[str, float], int]:
    """Seconds of transformers, and the best of the sizes of its batches."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    def draw(some: list[list[int]], most: int, size: int) -> None:
        for begin in range(0, len(some), size):
            batch = some[begin : begin + size]
            longest = max(map(len, batch))
            ids = torch.tensor([[0] * (longest - len(each)) + each for each in batch])
            mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in batch])
            found = model.generate(
                ids,
                attention_mask=mask,
                do_sample=True,
                temperature=TEMPERATURE,
                top_k=0,
                top_p=1.0,
                num_return_sequences=SAMPLES,
                min_new_tokens=most,
                max_new_tokens=most,
                pad_token_id=0,
            )
            assert found.shape == (len(batch) * SAMPLES, longest + most), "transformers stopped early"

    torch.manual_seed(0)
    draw(prompts[:1], 2, 1)
    tried = {size: timed(lambda s=size: draw(prompts[:s], 2, s))["cpu"] / size for size in sizes if len(sizes) > 1}
    best = min(sizes, key=lambda size: tried.get(size, 0.0))
    return timed(lambda: draw(prompts, tokens, best)), best


def main() -> None:
    """Run all arms, print a table and write a result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--bfloat16", type=int, nargs=2, default=(2, 8), help="prompts and tokens of that arm")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    from herdlm.tokens.chat_format import ChatFormat

    torch.set_num_threads(1)
    format = ChatFormat.load(given.model)
    prompts = [format.prompt([{"role": "user", "content": text}]) for text in problems(given.prompts)]
    arms: dict[str, dict[str, Any]] = {}

    def add(name: str, seconds: dict[str, float], count: int, tokens: int, **more: Any) -> None:
        drawn = count * SAMPLES * tokens
        arms[name] = {
            "tokens_per_cpu_second": drawn / seconds["cpu"],
            "answers_per_cpu_second": drawn / given.tokens / seconds["cpu"],
            "answers_per_second": drawn / given.tokens / seconds["wall"],
            "prompts": count,
            "tokens": tokens,
            **more,
        }
        print(f"{name:24} {json.dumps(arms[name])}", flush=True)

    seconds, compute = ours(given.model, prompts, given.tokens)
    add("herdlm", seconds, len(prompts), given.tokens, precision=compute)
    sizes = tuple(size for size in SIZES if size <= len(prompts))
    seconds, size = theirs(given.model, prompts, given.tokens, "float32", sizes)
    add("transformers float32", seconds, len(prompts), given.tokens, batch_prompts=size)
    count, tokens = given.bfloat16
    seconds, size = theirs(given.model, prompts[:count], tokens, "bfloat16", (count,))
    add("transformers bfloat16", seconds, count, tokens, batch_prompts=size)
    best = max(arm["answers_per_cpu_second"] for name, arm in arms.items() if name != "herdlm")
    # An arm of fewer tokens is harmed a little, as its prompts weigh more; it decides only where it is the better one.
    ratio = arms["herdlm"]["answers_per_cpu_second"] / best
    print(f"herdlm / the better of transformers: {ratio:.2f} (goal {GOAL})")
    if given.out is None:
        return
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    result = {
        "benchmark": "sampling",
        "date": date,
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "versions": {name: version(name) for name in ("herdlm", "torch", "transformers")},
        "work": {
            "model": given.model.name,
            "prompts": len(prompts),
            "samples": SAMPLES,
            "prompt_tokens": [len(prompt) for prompt in prompts],
            "temperature": TEMPERATURE,
        },
        "arms": arms,
        "ratio": ratio,
        "goal": GOAL,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"sampling-cpu-{date}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
