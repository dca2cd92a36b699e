"""The engine: requests in, completions out. Rejection sampling, judging, evaluation and the server all use it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from herdlm.base.errors import HerdError, InputError
from herdlm.base.progress import Progress
from herdlm.generate.cpu.fused import FusedTransformer
from herdlm.generate.gpu.attention import attention_type, kernels_fit
from herdlm.generate.gpu.graphs import DecodeGraphs
from herdlm.generate.gpu.layer import layer_type
from herdlm.generate.input_processor import InputProcessor, check_model
from herdlm.generate.load import compute_type, load_model
from herdlm.generate.memory import default_cache_tokens
from herdlm.generate.new_weights import plain_model, replace_weights
from herdlm.generate.paged_attention import PagedCache
from herdlm.generate.pages import PagePool
from herdlm.generate.parallel import DriverTransformer, local_config
from herdlm.generate.processes import start_processes
from herdlm.generate.prompt_scores import score_prompts
from herdlm.generate.request import Completion, Event, FinishReason, SamplingParams
from herdlm.generate.sampler import sample_tokens
from herdlm.generate.scheduler import ONGOING, OUT_OF_LENGTH, STOPPED, Scheduler
from herdlm.generate.sequences import Batch, Integers, Request, Sample
from herdlm.model.transformer import Transformer
from herdlm.parallel.mesh import Mesh
from herdlm.tokens.tokenizer import Tokenizer

log = logging.getLogger(__name__)


class Engine:
    """Generates with one model on one device. Not thread-safe: a server runs its engine in one thread.

    Args:
        model: on its device. The engine computes with a fused copy of its weights
            (:class:`herdlm.generate.cpu.fused.FusedTransformer`); call :meth:`forget_prefixes` after changing them, or
            :meth:`take_weights` to give it others.
        tokenizer: for texts and stop strings; None to generate tokens only.
        page_size: tokens per page of the key/value cache.
        cache_tokens: tokens the cache holds. None: enough for ``max_batch`` sequences of the model's ``max_seq_len``,
            within 1 GiB on a CPU and 80% of the free memory on a GPU.
        max_batch: the most sequences at once.
        step_tokens: the most tokens in one step; longer prompts are computed in chunks.
        compute: the type of activations and cache; None: the weights' own.
        keep_model: leave ``model`` its weights. If False, memory never holds both forms, and
            :meth:`forget_prefixes` cannot take new weights.
        cuda_graphs: on a GPU, record decode steps as CUDA graphs (:mod:`herdlm.generate.gpu.graphs`). Has no effect on
            a model over several processes.
        mesh: for a model over several processes, of which this is the first (:mod:`herdlm.generate.parallel`).

    Raises:
        InputError: a size is out of range, the model is a reward model, or its vocabulary is smaller than the
            tokenizer's.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer | None,
        *,
        page_size: int = 16,
        cache_tokens: int | None = None,
        max_batch: int = 256,
        step_tokens: int = 2048,
        compute: torch.dtype | None = None,
        keep_model: bool = True,
        cuda_graphs: bool = True,
        mesh: Mesh | None = None,
    ) -> None:
        config, weight = model.config, model.model.embed_tokens.weight
        for name, size in (("page_size", page_size), ("max_batch", max_batch), ("step_tokens", step_tokens)):
            if size < 1:
                raise InputError(f"{name} = {size}", "Give a positive number")
        if cache_tokens is not None and cache_tokens < page_size:
            raise InputError(f"cache_tokens = {cache_tokens} is less than a page of {page_size}", "Raise cache_tokens")
        check_model(config, tokenizer)
        self.tokenizer, self.config, self.device = tokenizer, config, weight.device
        self.compute = compute or weight.dtype
        self._whole, self._torn = model if keep_model and mesh is None else None, False
        if mesh is None:
            self.model = self._fused(model, free_original=not keep_model)
        else:
            self.model = DriverTransformer(model, self.compute, mesh, free_original=not keep_model)
        if cache_tokens is None:
            local = local_config(config, mesh) if mesh else config
            cache_tokens = default_cache_tokens(local, self.device, self.compute, max_batch)
        pages = max(-(-cache_tokens // page_size), 1)
        self.pool = PagePool(pages, page_size)
        self.scheduler = Scheduler(self.pool, max_batch, max(step_tokens, max_batch))
        if isinstance(self.model, DriverTransformer):
            self.cache = self.model.open(pages, page_size)
        else:
            self.cache = PagedCache(config, pages, page_size, self.device, self.compute)
        self._attention = attention_type(self.cache)
        self._graphs = self._decode_graphs() if cuda_graphs else None
        self.requests: dict[int, Request] = {}
        self._inputs = InputProcessor(config, tokenizer, self.pool)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: str = "auto",
        dtype: str | torch.dtype = "auto",
        page_size: int = 16,
        cache_tokens: int | None = None,
        max_batch: int = 256,
        step_tokens: int = 2048,
        tensor_parallel: int = 1,
        pipeline_parallel: int = 1,
    ) -> Engine:
        """Load a Hugging Face folder with its tokenizer; see :func:`herdlm.generate.load.load_model`.

        Args:
            dtype: "auto" is the stored type, or float32 if the processor is faster with it.
            tensor_parallel, pipeline_parallel: above 1, start more processes on this machine, each with its shard of
                the model. A process can have one such engine; :meth:`close` ends the others.
        """
        mesh = None
        if (tensor_parallel, pipeline_parallel) != (1, 1):
            mesh = start_processes(
                Path(folder), tensor_parallel, pipeline_parallel, device, str(dtype).removeprefix("torch.")
            )
        model = load_model(Path(folder), str(mesh.device) if mesh else device, dtype)
        return cls(
            model,
            Tokenizer.load(Path(folder)),
            page_size=page_size,
            cache_tokens=cache_tokens,
            max_batch=max_batch,
            step_tokens=step_tokens,
            compute=compute_type(model, dtype),
            keep_model=False,
            mesh=mesh,
        )

    @property
    def processes(self) -> int:
        """How many processes share the model."""
        return self.model.processes if isinstance(self.model, DriverTransformer) else 1

    @property
    def busy(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self.requests)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams],
        *,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """Continue each prompt; returns its ``n`` completions in order. ``progress`` counts samples.

        Args:
            prompts: token ids.
            params: for all prompts, or one for each.

        Raises:
            InputError: a prompt or a parameter is invalid; nothing is generated.
            HerdError: submitted requests are still running.
        """
        if self.busy:
            raise HerdError("the engine is busy with submitted requests", "Finish or abort them before generate")
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
        if len(each) != len(prompts):
            raise InputError(f"{len(prompts)} prompts but {len(each)} sampling parameters", "Give one for each prompt")
        requests = [self._inputs.request(prompt, p, stream=False) for prompt, p in zip(prompts, each, strict=True)]
        position = {request.id: i for i, request in enumerate(requests)}
        done: list[dict[int, Completion]] = [{} for _ in requests]
        try:
            for request in requests:
                self._enqueue(request)
            while self.requests:
                events = self.step()
                for event in events:
                    if event.completion:
                        done[position[event.request_id]][event.sample] = event.completion
                if progress and events:
                    progress.advance(len(events))
        finally:
            self._drop([request.id for request in requests])
        return [[completions[j] for j in range(len(completions))] for completions in done]

    def submit(self, prompt: Sequence[int], params: SamplingParams, *, stream: bool = True) -> int:
        """Queue a prompt; returns its request id. Without ``stream`` a sample is reported only when finished.

        Raises:
            InputError: the prompt or a parameter is invalid.
        """
        request = self._inputs.request(prompt, params, stream)
        self._enqueue(request)
        return request.id

    def prepare(self, params: SamplingParams) -> None:
        """Compile the grammar of a request to come, in any thread, so that :meth:`submit` takes no time for it.

        Raises:
            InputError: it cannot be used.
        """
        self._inputs.prepare(params)

    def abort(self, request_id: int) -> bool:
        """Drop a request and free its memory; returns False if the engine does not have it."""
        return self._drop([request_id]) > 0

    def take_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace the model's weights, from memory, and empty the prefix cache; the engine lets its first model go.

        What it computes then equals what an engine of a model with these weights computes.

        Args:
            weights: see :func:`herdlm.generate.new_weights.replace_weights`.

        Raises:
            InputError: the weights are not those of this model, or it is quantized or shared by several processes.
                Where some were replaced already, the engine refuses requests until it has all.
            HerdError: requests are running on the old weights.
        """
        if self.busy:
            raise HerdError("requests are running", "Finish or abort them before changing the weights")
        fused = plain_model(self.model)
        self._whole, self._torn = None, True
        replace_weights(fused, weights)
        self.pool.forget_contents()
        self._graphs, self._torn = self._decode_graphs() if self._graphs else None, False

    def forget_prefixes(self) -> None:
        """Empty the prefix cache and copy the model's changed weights.

        Raises:
            HerdError: requests are running on the old weights.
        """
        if self.busy:
            raise HerdError("requests are running", "Finish or abort them before changing the weights")
        self.pool.forget_contents()
        if self._whole is not None:
            self.model = self._fused(self._whole)
            self._graphs = self._decode_graphs() if self._graphs else None

    @property
    def cache_bytes(self) -> int:
        """Memory of this process's cache when full."""
        return self.pool.count * self.cache.page_bytes * len(self.cache.layers)

    def close(self) -> None:
        """End the other processes of a parallel model."""
        if isinstance(self.model, DriverTransformer):
            self.model.close()

    def step(self) -> list[Event]:
        """Advance by one pass through the model; returns an event for each sample that has news."""
        batch = self.scheduler.schedule()
        if batch is None:
            return []
        try:
            tokens, logprobs = self._forward(batch)
        except BaseException:
            # The pages' contents are undefined now, and later requests must not find them.
            self._drop(list(self.requests))
            self.pool.forget_contents()
            raise
        ended = self.scheduler.commit(batch, tokens, logprobs)
        return self._report(batch.drawing, tokens, logprobs, ended)

    def _fused(self, model: Transformer, free_original: bool = False) -> Transformer:
        # A stand-in for a model runs unchanged.
        kind = layer_type(self.device, self.compute, self.config.head_size)
        fused = isinstance(model, Transformer)
        return FusedTransformer(model, self.compute, free_original=free_original, layer=kind) if fused else model

    def _decode_graphs(self) -> DecodeGraphs | None:
        cache = self.cache
        if not isinstance(self.model, FusedTransformer) or not kernels_fit(cache.device, cache.dtype, cache.head_size):
            return None
        return DecodeGraphs(self.model, cache, self.scheduler.sequences.count, self.config.max_seq_len)

    def _drop(self, request_ids: list[int]) -> int:
        """Drop requests; returns how many the engine had."""
        dropped = {self.requests.pop(request_id) for request_id in request_ids if request_id in self.requests}
        if dropped:
            self.scheduler.abort(dropped)
        return len(dropped)

    def _enqueue(self, request: Request) -> None:
        if self._torn:
            raise HerdError("the engine has only part of its new weights", "Give it all with take_weights")
        self.requests[request.id] = request
        self.scheduler.add(self._inputs.samples(request))

    @torch.inference_mode()
    def _forward(self, batch: Batch) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Run the model over a batch and draw; returns tokens and their log-probabilities, [M] each."""
        sequences, drawing = self.scheduler.sequences, batch.drawing
        self.cache.copy_pages(batch.copies[0], batch.copies[1])
        if self._graphs and self._graphs.takes(batch):
            return self._drawn(self._graphs.run(batch), batch.at, drawing)
        tokens, positions = (torch.from_numpy(a).to(self.device)[None] for a in (batch.tokens, batch.positions))
        hidden = self.model(tokens, positions, self._attention(self.cache, batch))[0]
        if len(batch.scoring):
            score_prompts(self.model, hidden, batch, sequences)
        if not len(drawing):
            return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
        # Samples that share a prompt draw their first token from one row of logits.
        distinct, inverse = np.unique(batch.at, return_inverse=True)
        logits = self.model.logits(hidden[torch.from_numpy(distinct).to(self.device)]).float()
        return self._drawn(logits, inverse, drawing)

    def _drawn(self, logits: Tensor, at: Integers, drawing: Integers) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Draw for sequences ``drawing`` [M] from the rows ``at`` [M] of ``logits``."""
        if len(at) != len(logits) or bool((at != np.arange(len(at))).any()):
            logits = logits[torch.from_numpy(at).to(self.device)]
        compiled = self.cache.compiled is not None
        drawn, logprobs = sample_tokens(logits, self.scheduler.sequences, drawing, compiled=compiled)
        return drawn.cpu().numpy().astype(np.int32), logprobs.cpu().numpy()

    def _report(
        self, drawing: Integers, tokens: NDArray[np.int32], logprobs: NDArray[np.float32], ended: NDArray[np.int8]
    ) -> list[Event]:
        """Process stop strings and grammars, finish the samples that ended, and report."""
        sequences, events = self.scheduler.sequences, []
        text_stop = np.zeros(len(drawing), dtype=np.bool_)
        for i in np.flatnonzero(sequences.watched[drawing]).tolist():
            sample = sequences.sample[drawing[i]]
            assert sample is not None
            if ended[i] != STOPPED:
                text_stop[i], failed = self._push(sample, int(tokens[i]))
                if failed and ended[i] == ONGOING:
                    ended[i] = OUT_OF_LENGTH
            if sample.request.stream and ended[i] == ONGOING and not text_stop[i]:
                reported = [float(logprobs[i])] if sample.request.params.logprobs else []
                text = sample.text.take() if sample.text else ""
                events.append(
                    Event(sample.request.id, sample.index, [int(tokens[i])], reported, text, None, sample.top[-1:])
                )
        finished = np.flatnonzero((ended != ONGOING) | text_stop)
        for i in finished.tolist():
            events += self._finish(int(drawing[i]), int(ended[i]), bool(text_stop[i]))
        if len(finished):
            self.scheduler.release(drawing[finished])
        return events

    def _push(self, sample: Sample, token: int) -> tuple[bool, bool]:
        """Add a token to a sample's text and grammar; returns whether that ends it, and whether its grammar failed."""
        stopped = sample.text.push(token) if sample.text else False
        if sample.matcher is None:
            return stopped, False
        sample.matcher.push(token)
        if sample.matcher.failed:
            log.warning("a grammar failed before its end: the sample is cut off")
        return stopped or sample.matcher.finished, sample.matcher.failed

    def _finish(self, row: int, ended: int, text_stop: bool) -> list[Event]:
        sequences = self.scheduler.sequences
        sample = sequences.sample[row]
        assert sample is not None
        request, start, end = sample.request, int(sequences.start[row]), int(sequences.length[row])
        excluded = 1 if ended == STOPPED else 0
        tokens = sequences.tokens[row, start : end - excluded].tolist()
        logprobs = sequences.logprobs[row, start:end].tolist() if request.params.logprobs else []
        if sample.text:
            sample.text.close()
            text = sample.text.text
        else:
            text = self.tokenizer.continuation(tokens) if self.tokenizer else ""
        reason: FinishReason = "length" if ended == OUT_OF_LENGTH and not text_stop else "stop"
        scores, params = request.scores, request.params
        completion = Completion(
            tokens,
            text,
            logprobs,
            reason,
            sample.top,
            scores.logprobs.tolist() if scores else [],
            scores.top if scores and params.top_logprobs else [],
            request.compared,
            int(sequences.tokens[row, end - 1]) if excluded else None,
        )
        request.unfinished -= 1
        if not request.unfinished:
            del self.requests[request.id]
        if params.samples > params.n:
            request.candidates.append((float(sequences.logprobs[row, start:end].mean()), sample.index, completion))
            return [] if request.unfinished else _best(request)
        if not request.stream:
            return [_whole(request, sample.index, completion)]
        last = sample.text.take() if sample.text else ""
        new = [] if excluded else tokens[-1:]
        return [Event(request.id, sample.index, new, logprobs[-1:], last, completion, sample.top[-1:])]


def _best(request: Request) -> list[Event]:
    """The best samples, numbered by rank."""
    ranked = sorted(request.candidates, key=lambda candidate: (-candidate[0], candidate[1]))
    return [_whole(request, rank, ranked[rank][2]) for rank in range(request.params.n)]


def _whole(request: Request, index: int, completion: Completion) -> Event:
    """The only event of a sample that is not streamed."""
    return Event(
        request.id, index, completion.tokens, completion.logprobs, completion.text, completion, completion.top_logprobs
    )
