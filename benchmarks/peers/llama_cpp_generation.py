"""llama.cpp as an arm of generate.py: the same weights as GGUF, many sequences at once, its own sampler.

Needs `pip install llama-cpp-python gguf` (the first is compiled for this processor).
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import numpy as np

LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(folder: Path, target: Path, precision: str) -> None:
    """The model of a Hugging Face folder as GGUF without a vocabulary; ``precision`` is F32, F16 or BF16."""
    import gguf

    from herdlm.generate.load import load_model

    model = load_model(folder, "cpu", "float32")
    config = model.config
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn_dim)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    kind = gguf.GGMLQuantizationType[precision]
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        module = name.removesuffix(".weight")
        if module in ENDS:
            gguf_name = ENDS[module]
        else:
            _, _, number, part = module.split(".", 3)
            gguf_name = f"blk.{number}.{LAYER[part]}"
            if part in ("self_attn.q_proj", "self_attn.k_proj"):  # RoPE's pairs side by side
                heads = config.heads if "q_proj" in part else config.kv_heads
                values = values.reshape(heads, 2, config.head_size // 2, -1).swapaxes(1, 2).reshape(values.shape)
        if values.ndim == 1 or precision == "F32":
            writer.add_tensor(f"{gguf_name}.weight", np.ascontiguousarray(values, dtype=np.float32))
        else:
            packed = gguf.quants.quantize(np.ascontiguousarray(values), kind)
            writer.add_tensor(f"{gguf_name}.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """Sequences side by side in one context, all fed at once, each dropped when it is done.

    Args:
        unified: one cache for all sequences; else one for each. Samples of one prompt share its cells in the first
            case only.
    """

    def __init__(self, gguf_file: Path, cells: int, sequences: int, unified: bool) -> None:
        from llama_cpp import llama_cpp

        self.api: Any = llama_cpp
        llama_cpp.llama_backend_init()
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p())
        self.model: Any = llama_cpp.llama_model_load_from_file(
            str(gguf_file).encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {gguf_file.name}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = cells, 2048, 512
        params.n_seq_max, params.kv_unified = sequences, unified
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = 0  # float32, as in the other arms
        self.context: Any = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("llama.cpp makes no context of this size")
        self.memory: Any = llama_cpp.llama_get_memory(self.context)
        self.batch: Any = llama_cpp.llama_batch_init(2048, 0, sequences)

    def generate(
        self, prompts: list[list[int]], new: list[int], samples: int = 1, greedy: bool = False
    ) -> tuple[list[list[int]], list[float]]:
        """Tokens of each sequence, and seconds to the first of each. ``samples`` are drawn for one prompt alone."""
        api, started = self.api, time.perf_counter()
        api.llama_memory_clear(self.memory, True)
        chain = api.llama_sampler_init_greedy() if greedy else api.llama_sampler_init_dist(1)
        count = len(prompts) * samples
        out: list[list[int]] = [[] for _ in range(count)]
        first = [0.0] * count
        last: dict[int, int] = {}
        fed: list[tuple[int, int, int, bool]] = []  # sequence, position, token, whether logits are wanted
        for index, prompt in enumerate(prompts):
            fed += [(index, at, token, at == len(prompt) - 1) for at, token in enumerate(prompt)]
        for begin in range(0, len(fed), 2048):
            for sequence, place in self._feed(fed[begin : begin + 2048]):
                for sample in range(samples):
                    last[sequence + sample] = api.llama_sampler_sample(chain, self.context, place)
        if samples > 1:
            for sample in range(1, samples):
                api.llama_memory_seq_cp(self.memory, 0, sample, -1, -1)
        lengths = [len(prompts[index // samples]) for index in range(count)]
        while last:
            now = time.perf_counter() - started
            for sequence, token in list(last.items()):
                first[sequence] = first[sequence] or now
                out[sequence].append(token)
                if len(out[sequence]) == new[sequence]:
                    del last[sequence]
                    api.llama_memory_seq_rm(self.memory, sequence, -1, -1)
            feed = [(s, lengths[s] + len(out[s]) - 1, token, True) for s, token in last.items()]
            for sequence, place in self._feed(feed):
                last[sequence] = api.llama_sampler_sample(chain, self.context, place)
        api.llama_sampler_free(chain)
        return out, first

    def close(self) -> None:
        """Free the context and the model."""
        self.api.llama_batch_free(self.batch)
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)

    def _feed(self, fed: list[tuple[int, int, int, bool]]) -> list[tuple[int, int]]:
        """Run tokens through the model; sequences with logits and where in the batch those are."""
        if not fed:
            return []
        batch = self.batch
        batch.n_tokens = len(fed)
        for at, (sequence, position, token, wanted) in enumerate(fed):
            batch.token[at], batch.pos[at] = token, position
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
            batch.logits[at] = wanted
        if self.api.llama_decode(self.context, batch):
            raise RuntimeError("llama.cpp did not decode a batch")
        return [(sequence, at) for at, (sequence, _, _, wanted) in enumerate(fed) if wanted]
