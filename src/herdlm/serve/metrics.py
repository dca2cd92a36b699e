"""Prometheus metrics: counters and histograms of requests, and gauges of the engines' state."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from herdlm.serve.access.limits import ConcurrencyLimiter
from herdlm.serve.access.request_log import RequestRecord
from herdlm.serve.workers.models import Models

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
ROUTES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/tokenize",
    "/detokenize",
    "/tokenizer_info",
    "/metrics",
    "/health",
)


class Metrics:
    """One server's metrics, in a registry of its own so that several servers can share a process."""

    def __init__(self, models: Models, concurrency: ConcurrencyLimiter) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "herdlm_requests", "Requests answered", ("route", "model", "status"), registry=self.registry
        )
        self.prompt_tokens = self._counter("herdlm_prompt_tokens", "Prompt tokens received")
        self.cached_tokens = self._counter("herdlm_cached_prompt_tokens", "Prompt tokens found in the prefix cache")
        self.generated_tokens = self._counter("herdlm_generated_tokens", "Tokens sampled")
        self.seconds = self._histogram("herdlm_request_seconds", "Time from the request to its answer's end", SECONDS)
        self.first_token = self._histogram(
            "herdlm_time_to_first_token_seconds", "Time from the request to a stream's first token", SECONDS
        )
        self.per_token = self._histogram(
            "herdlm_time_per_output_token_seconds", "Mean time between tokens of a streamed answer", TOKEN_SECONDS
        )
        self.registry.register(_EngineCollector(models, concurrency))

    def count(self, record: RequestRecord) -> None:
        """Count a request that has ended."""
        model = record.model
        self.requests.labels(_route(record.path), model, str(record.status)).inc()
        if not model:
            return
        self.prompt_tokens.labels(model).inc(record.prompt_tokens)
        self.cached_tokens.labels(model).inc(record.cached_tokens)
        self.generated_tokens.labels(model).inc(record.completion_tokens)
        self.seconds.labels(model).observe(record.ended_at - record.started_at)
        if record.first_token_at is not None and record.last_token_at is not None:
            self.first_token.labels(model).observe(record.first_token_at - record.started_at)
            if record.completion_tokens > 1:
                spent = record.last_token_at - record.first_token_at
                self.per_token.labels(model).observe(spent / (record.completion_tokens - 1))

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ("model",), registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, ("model",), buckets=buckets, registry=self.registry)


class _EngineCollector(Collector):
    """Reads the engines' state at each scrape."""

    def __init__(self, models: Models, concurrency: ConcurrencyLimiter) -> None:
        self.models, self.concurrency = models, concurrency

    def collect(self) -> Iterator[Metric]:
        """The metrics of all models."""
        yield GaugeMetricFamily("herdlm_answers_underway", "Answers running or waiting", value=self.concurrency.samples)
        yield CounterMetricFamily("herdlm_model_loads", "Models loaded", value=self.models.loads)
        yield CounterMetricFamily("herdlm_model_evictions", "Models unloaded to make room", value=self.models.evictions)
        gauges = {
            "herdlm_batch_size": ("Samples in the batch", "running"),
            "herdlm_queue_length": ("Samples waiting for room in the batch", "waiting"),
            "herdlm_cache_pages_held": ("Cache pages held by running samples", "held_pages"),
            "herdlm_cache_pages": ("Cache pages in total", "total_pages"),
        }
        counters = {
            "herdlm_preemptions": ("Samples preempted because pages ran out", "preemptions"),
            "herdlm_prefix_tokens_reused": ("Prompt tokens served from the prefix cache", "reused_tokens"),
        }
        for name, (text, attribute) in gauges.items():
            gauge = GaugeMetricFamily(name, text, labels=("model",))
            for model in self.models:
                gauge.add_metric((model.text.name,), getattr(model.backend.stats, attribute))
            yield gauge
        for name, (text, attribute) in counters.items():
            counter = CounterMetricFamily(name, text, labels=("model",))
            for model in self.models:
                counter.add_metric((model.text.name,), getattr(model.backend.stats, attribute))
            yield counter
        use = GaugeMetricFamily("herdlm_cache_use_ratio", "Fraction of cache pages held", labels=("model",))
        loaded = GaugeMetricFamily("herdlm_model_loaded", "1 if the model is loaded", labels=("model",))
        restarts = CounterMetricFamily("herdlm_worker_restarts", "Workers restarted after a crash", labels=("model",))
        for model in self.models:
            stats, label = model.backend.stats, (model.text.name,)
            use.add_metric(label, stats.held_pages / stats.total_pages if stats.total_pages else 0.0)
            loaded.add_metric(label, float(model.backend.ready))
            restarts.add_metric(label, model.backend.restarts)
        yield from (use, loaded, restarts)


def _route(path: str) -> str:
    """The route of a path; unknown paths share one, so that clients cannot add series."""
    for route in ROUTES:
        if path == route or path.startswith(f"{route}/"):
            return route
    return "other"
