"""Estimates a worker's memory before it is started."""

from __future__ import annotations

from herdlm.base.errors import DamagedError
from herdlm.base.json_files import read_object
from herdlm.model.folders import CONFIG
from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.protocol import WorkerOptions

PROCESS_BYTES = 300 * 2**20  # of a process without weights and cache: Python, torch, activations
CACHE_BYTES = 2**30  # the engine's limit for the cache on a CPU
MAX_SEQUENCES = 256  # of an engine's batch, for which it sizes the cache


def estimate_memory(text: ModelText, options: WorkerOptions) -> int:
    """Bytes of a worker: its weight files, its cache and its processes. On a GPU this needs ``cache_tokens``."""
    processes = options.tensor_parallel * options.pipeline_parallel
    weights = sum(path.stat().st_size for path in text.folder.glob("*.safetensors"))
    config = read_object(text.folder / CONFIG, "Restore it from its source")

    def number(key: str, default: int = 0) -> int:
        value = config.get(key)
        if value is not None and (type(value) is not int or not 0 <= value < 2**31):
            raise DamagedError(f"{text.folder / CONFIG}: {key} = {value!r} is no size", "Restore it from its source")
        return value or default

    heads = number("num_attention_heads", 1)
    head_size = number("head_dim") or number("hidden_size") // heads
    width = 2 if options.dtype in ("bfloat16", "float16") else 4  # with "auto", a CPU may compute in float32
    per_token = 2 * number("num_hidden_layers") * number("num_key_value_heads", heads) * head_size * width
    cache = min(MAX_SEQUENCES * text.context * per_token, CACHE_BYTES)
    cache = cache if options.cache_tokens is None else options.cache_tokens * per_token
    return weights + cache + processes * PROCESS_BYTES
