"""The work of a step on a CPU besides its matrix products, compiled by Numba.

Decoding sequences read keys and values in place, in their pages. torch's operations take at least twice as long: they
need pages gathered first and sequences grouped by length. Norms, activations and draws read their numbers once instead
of once per operation. Compiling takes some seconds (:mod:`herdlm.generate.cpu.compiled`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from herdlm.generate.sequences import Integers

log = logging.getLogger(__name__)

LOG2_E = np.float32(1.4426950408889634)
LEAST = np.float32(-1e30)  # instead of minus infinity, whose differences are NaN
BLOCK = 256  # probabilities that a draw sums before it searches among them
SPLIT_FROM = 2**20  # elements of keys per thread; fewer are not worth waking another one


@intrinsic
def _wide(_context: Any, value: Any) -> Any:
    """A stored number, or the bits in an int32, as float32."""

    def build(_: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        (bits,) = arguments
        if value == types.uint16:
            bits = builder.shl(builder.zext(bits, ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(value), build


@intrinsic
def _narrow(_context: Any, value: Any, like: Any) -> Any:
    """A float32 in the storage type of ``like``; bfloat16 is rounded to nearest, ties to even."""

    def build(_: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        if like == types.float32:
            return arguments[0]
        whole = ir.IntType(32)
        bits = builder.bitcast(arguments[0], whole)
        odd = builder.and_(builder.lshr(bits, whole(16)), whole(1))
        rounded = builder.add(bits, builder.add(odd, whole(0x7FFF)))
        return builder.trunc(builder.lshr(rounded, whole(16)), ir.IntType(16))

    return like(value, like), build


@njit(inline="always")
def _power_of_two(x: Any) -> Any:
    """2**x with a relative error of 2e-7, 0 below 2**-126. Compilers vectorize it, unlike the library's function."""
    small = x < np.float32(-126.0)
    x = min(max(x, np.float32(-126.0)), np.float32(127.0))
    whole = np.floor(x + np.float32(0.5))
    x -= whole
    power = np.float32(1.535336188319500e-4)
    power = power * x + np.float32(1.339887440266574e-3)
    power = power * x + np.float32(9.618437357674640e-3)
    power = power * x + np.float32(5.550332471162809e-2)
    power = power * x + np.float32(2.402264791363012e-1)
    power = power * x + np.float32(6.931472028550421e-1)
    power = power * x + np.float32(1.0)
    power *= _wide(np.int32((np.int32(whole) + 127) << 23))
    return np.float32(0) if small else power


# All of "fast" math but the promises that nothing is NaN or infinite.
_compiled: Any = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_compiled
def _write(pages: Any, slots: Any, keys: Any, values: Any) -> None:
    """Write keys and values [N, K, C] of tokens to their slots in pages [P, 2, K, page_size, C]."""
    _, _, heads, page_size, size = pages.shape
    for n in range(len(slots)):
        page, offset = divmod(slots[n], page_size)
        for head in range(heads):
            for c in range(size):
                pages[page, 0, head, offset, c] = keys[n, head, c]
                pages[page, 1, head, offset, c] = values[n, head, c]


@_compiled
def _score(query: Any, pages: Any, page: int, head: int, seen: int, scores: Any) -> None:
    """Scores [G, page_size] of a head's queries for a page's keys; LEAST for invisible keys."""
    group, size = query.shape[1:]
    for t in range(seen):
        for g in range(group):
            score = np.float32(0)
            for c in range(size):
                score += query[head, g, c] * _wide(pages[page, 0, head, t, c])
            scores[g, t] = score
    scores[:, seen:] = LEAST


@_compiled
def _weigh(scores: Any, g: int, top: Any) -> Any:
    """Turn a query's scores into weights; returns the new highest score, their sum, and earlier weights' factor."""
    highest = top
    for t in range(scores.shape[1]):
        highest = max(highest, scores[g, t])
    for t in range(scores.shape[1]):
        scores[g, t] = _power_of_two(scores[g, t] - highest)
    total = np.float32(0)
    for t in range(scores.shape[1]):
        total += scores[g, t]
    return highest, total, _power_of_two(top - highest)


@_compiled
def _mix(scores: Any, pages: Any, page: int, head: int, seen: int, mixed: Any) -> None:
    """Add a page's weighted values to the sums ``mixed`` [K, G, C]."""
    group, size = mixed.shape[1:]
    for t in range(seen):
        for g in range(group):
            weight = scores[g, t]
            for c in range(size):
                mixed[head, g, c] += weight * _wide(pages[page, 1, head, t, c])


@_compiled
def _attend(
    pages: Any, queries: Any, at: Any, tables: Any, skipped: Any, reach: Any, out: Any, norms: Any, begin: int, end: int
) -> None:
    """Rows ``begin`` to ``end`` of :meth:`DecodingRows.attend`: online softmax, page by page."""
    _, _, heads, page_size, size = pages.shape
    group = queries.shape[1] // heads
    scale = LOG2_E / np.float32(np.sqrt(size))
    query, mixed = np.empty((heads, group, size), np.float32), np.empty((heads, group, size), np.float32)
    top, total = np.empty((heads, group), np.float32), np.empty((heads, group), np.float32)
    scores = np.empty((group, page_size), np.float32)
    for row in range(begin, end):
        n = at[row]
        for h in range(heads * group):
            for c in range(size):
                query[h // group, h % group, c] = _wide(queries[n, h, c]) * scale
        mixed[:], total[:], top[:] = 0, 0, LEAST
        for column in range(skipped[row], (reach[row] + page_size - 1) // page_size):
            page, seen = tables[row, column], min(page_size, reach[row] - column * page_size)
            for head in range(heads):
                _score(query, pages, page, head, seen, scores)
                for g in range(group):
                    top[head, g], here, fade = _weigh(scores, g, top[head, g])
                    total[head, g] = total[head, g] * fade + here
                    for c in range(size):
                        mixed[head, g, c] *= fade
                _mix(scores, pages, page, head, seen, mixed)
        for h in range(heads * group):
            head, g = h // group, h % group
            share, others = np.float32(1) / total[head, g], np.float32(0)
            if skipped[row]:  # combine with the skipped pages' result: both are parts of one softmax
                norm = top[head, g] / LOG2_E + np.log(total[head, g])
                part = np.float32(1) / (np.float32(1) + np.exp(norms[n, h] - norm))
                share, others = share * part, np.float32(1) - part
            for c in range(size):
                mine = mixed[head, g, c] * share
                if others != 0:
                    mine += _wide(out[n, h, c]) * others
                out[n, h, c] = _narrow(mine, out[n, 0, 0])


@_compiled
def _norm(x: Any, weight: Any, eps: Any, out: Any) -> None:
    """See :func:`norm`."""
    for n in range(x.shape[0]):
        squares = np.float32(0)
        for d in range(x.shape[1]):
            squares += x[n, d] * x[n, d]
        inverse = np.float32(1) / np.float32(np.sqrt(squares + eps))
        for d in range(x.shape[1]):
            out[n, d] = x[n, d] * inverse * weight[d]


@_compiled
def _gated(joined: Any, out: Any) -> None:
    """See :func:`gated`."""
    size = out.shape[1]
    for n in range(out.shape[0]):
        for f in range(size):
            gate = joined[n, f]
            out[n, f] = gate / (np.float32(1) + _power_of_two(-gate * LOG2_E)) * joined[n, size + f]


@_compiled
def _draw(logits: Any, temperature: Any, uniforms: Any, tokens: Any, logprobs: Any) -> None:
    """Draw where sums over logits [M, V] pass the uniform number: by blocks first, then within one."""
    vocabulary = logits.shape[1]
    blocks = (vocabulary + BLOCK - 1) // BLOCK
    sums = np.empty(blocks, np.float32)
    for row in range(len(tokens)):
        highest = logits[row, 0]
        for v in range(vocabulary):
            highest = max(highest, logits[row, v])
        scale = LOG2_E / temperature[row]
        total: Any = 0.0
        for block in range(blocks):
            here = np.float32(0)
            for v in range(block * BLOCK, min(block * BLOCK + BLOCK, vocabulary)):
                here += _power_of_two((logits[row, v] - highest) * scale)
            sums[block] = here
            total += here
        whole = total
        if temperature[row] != 1:
            whole = 0.0
            for v in range(vocabulary):
                whole += _power_of_two((logits[row, v] - highest) * LOG2_E)
        point, passed, block = uniforms[row] * total, 0.0, 0
        while block < blocks - 1 and not passed + sums[block] > point:
            passed += sums[block]
            block += 1
        token = 0
        for v in range(block * BLOCK, min(block * BLOCK + BLOCK, vocabulary)):
            share = _power_of_two((logits[row, v] - highest) * scale)
            if share > 0:
                token = v
                passed += share
                if passed > point:
                    break
        tokens[row] = token
        logprobs[row] = logits[row, token] - highest - np.log(whole)


@cache
def compile_for(dtype: torch.dtype) -> None:
    """Compile for float32, and for pages of ``dtype``: float32 or bfloat16. Happens once per process."""
    started = time.perf_counter()
    stored = types.uint16 if dtype == torch.bfloat16 else types.float32

    # Compile these signatures only. By default Numba would compile again for arrays that happen to be contiguous.
    def array(of: Any, dimensions: int, layout: Any = "A") -> Any:
        return types.Array(of, dimensions, layout)

    functions = (_write, _attend, _norm, _gated, _draw)
    for function in functions:
        function.disable_compile(False)
    pages, heads, indices = array(stored, 5, "C"), array(stored, 3), array(types.int64, 1, "C")
    _write.compile((pages, indices, heads, heads))
    _attend.compile(
        (
            pages,
            heads,
            indices,
            array(types.int64, 2, "C"),
            indices,
            indices,
            array(stored, 3, "C"),
            array(types.float32, 2, "C"),
            types.int64,
            types.int64,
        )
    )
    rows, numbers = array(types.float32, 2, "C"), array(types.float32, 1, "C")
    _norm.compile((rows, numbers, types.float32, rows))
    _gated.compile((rows, rows))
    _draw.compile((rows, numbers, numbers, indices, numbers))
    for function in functions:
        function.disable_compile()
    log.info("generation compiled for this processor in %.1f s", time.perf_counter() - started)


def _numbers(tensor: Tensor) -> NDArray[Any]:
    """A tensor's memory, bfloat16 as its bits."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [N, D] over the root of its sum of squares and ``eps``, times ``weight`` [D]; all float32."""
    out = torch.empty_like(x)
    _norm(x.numpy(), weight.numpy(), eps, out.numpy())
    return out


def gated(joined: Tensor) -> Tensor:
    """SiLU of the gate times up, [N, F], from both joined, [N, 2 * F]; all float32."""
    out = joined.new_empty(len(joined), joined.shape[1] // 2)
    _gated(joined.numpy(), out.numpy())
    return out


def draw(logits: Tensor, temperature: NDArray[np.float32], uniforms: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """As :func:`herdlm.generate.sampling.sampling.draw_tokens`, for rows with no option but a temperature.

    Args:
        logits: [M, V] float32.
        temperature, uniforms: [M], above 0 and in [0, 1).
    """
    tokens, logprobs = torch.empty(len(logits), dtype=torch.int64), torch.empty(len(logits))
    _draw(logits.numpy(), temperature, uniforms, tokens.numpy(), logprobs.numpy())
    return tokens, logprobs


class CompiledPages:
    """The pages of all layers, [P, 2, K, page_size, C] each, float32 or bfloat16, for compiled code.

    The constructor compiles that code.
    """

    def __init__(self, layers: Sequence[Tensor]) -> None:
        compile_for(layers[0].dtype)
        self.layers = [_numbers(layer) for layer in layers]
        self.page_size = layers[0].shape[3]

    def write(self, layer: int, slots: Integers, keys: Tensor, values: Tensor) -> None:
        """Write keys and values [N, K, C] to the slots of N tokens."""
        _write(self.layers[layer], slots, _numbers(keys), _numbers(values))

    def plan(self, at: Integers, tables: Integers, skipped: Integers, reach: Integers, elements: int) -> DecodingRows:
        """Plan attention of R rows, one query each, to every layer's pages.

        Args:
            at: [R], the index of each row's query among a step's N.
            tables: [R, W] block tables.
            skipped: [R], how many pages at the beginning of each to skip, because their attention is computed already.
            reach: [R], how many keys each row sees, skipped ones included.
            elements: in the heads of a query, H * C.
        """
        keys = np.cumsum(reach - skipped * self.page_size)
        threads = min(torch.get_num_threads(), len(at), int(keys[-1]) * elements // SPLIT_FROM + 1)
        borders = np.searchsorted(keys, keys[-1] * np.arange(1, threads) // threads)
        return DecodingRows(
            self.layers,
            tuple(np.ascontiguousarray(array) for array in (at, tables, skipped, reach)),
            list(pairwise((0, *borders.tolist(), len(at)))),
        )


@dataclass(slots=True, eq=False)
class DecodingRows:
    """See :meth:`CompiledPages.plan`; ``parts`` are each thread's rows."""

    layers: list[NDArray[Any]]
    arrays: tuple[Integers, ...]
    parts: list[tuple[int, int]]

    def attend(self, layer: int, queries: Tensor, out: Tensor, norms: Tensor) -> None:
        """Attend to a layer's pages.

        Args:
            queries: [N, H, C].
            out: [N, H, C]; receives the rows' results. For rows that skip pages it holds the skipped pages' result.
            norms: [N, H] float32, the log-sum-exp of the skipped pages' scores.
        """
        share: Any = partial(_attend, self.layers[layer], _numbers(queries), *self.arrays, _numbers(out), norms.numpy())
        others = [_pool().submit(share, begin, end) for begin, end in self.parts[1:]]
        share(*self.parts[0])
        for other in others:
            other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(torch.get_num_threads(), "attention")
