"""What Prometheus would read, by its own parser, against what was asked; and the access log."""

import json
import logging
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.conftest import running
from tests.serve.workers.test_backend import eventually

CHAT = {"model": "flagship", "messages": [{"role": "user", "content": "Tell me a secret, please"}]}


@pytest.fixture
def alone(folder):
    with running(folder) as server:
        yield server


def samples(server):
    """Values by (name, labels), as the parser reads them."""
    answer = httpx.get(server.url.removesuffix("v1") + "metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation and family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found[(sample.name, *sorted(sample.labels.items()))] = sample.value
    return found


def test_counters_and_histograms_tell_what_happened(alone):
    whole = alone.client.chat.completions.create(**CHAT, max_tokens=10)
    list(alone.client.chat.completions.create(**CHAT, max_tokens=5, n=2, stream=True))
    httpx.post(f"{alone.url}/chat/completions", json=CHAT | {"temperature": 9})
    httpx.post(f"{alone.url}/chat/completions", json=CHAT | {"model": "made-up"})
    httpx.get(f"{alone.url}/made-up")
    found, model = samples(alone), ("model", "flagship")
    route = ("route", "/v1/chat/completions")
    assert found["herdlm_requests_total", model, route, ("status", "200")] == 2
    assert found["herdlm_requests_total", ("model", ""), route, ("status", "400")] == 1
    assert found["herdlm_requests_total", ("model", ""), route, ("status", "404")] == 1
    assert found["herdlm_requests_total", ("model", ""), ("route", "other"), ("status", "404")] == 1
    assert found["herdlm_prompt_tokens_total", model] == 2 * whole.usage.prompt_tokens
    assert found["herdlm_generated_tokens_total", model] == 20
    cached = (whole.usage.prompt_tokens - 1) // 16 * 16
    assert found["herdlm_cached_prompt_tokens_total", model] == cached > 0
    assert found["herdlm_prefix_tokens_reused_total", model] == cached
    assert found["herdlm_time_to_first_token_seconds_count", model] == 1
    assert found["herdlm_time_per_output_token_seconds_count", model] == 1
    assert found["herdlm_request_seconds_count", model] == 2
    buckets = [value for key, value in found.items() if key[0] == "herdlm_request_seconds_bucket"]
    assert buckets == sorted(buckets) and buckets[-1] == 2
    assert found["herdlm_model_loaded", model] == 1 and found["herdlm_answers_underway",] == 0
    assert found["herdlm_batch_size", model] == found["herdlm_cache_use_ratio", model] == 0


def test_gauges_tell_what_goes_on(alone):
    step = alone.engine.step
    alone.engine.step = lambda: [time.sleep(0.1), step()][1]
    with alone.client as client:
        stream = client.chat.completions.create(**CHAT, max_tokens=200, n=3, stream=True)
        for _ in range(5):
            next(stream)
        found, model = samples(alone), ("model", "flagship")
        assert found["herdlm_batch_size", model] == 3 and found["herdlm_answers_underway",] == 3
        assert 0 < found["herdlm_cache_pages_held", model] < found["herdlm_cache_pages", model]
        assert 0 < found["herdlm_cache_use_ratio", model] < 1
        stream.close()
        eventually(lambda: samples(alone)["herdlm_batch_size", model] == 0)
    assert samples(alone)["herdlm_cache_use_ratio", model] == 0


def test_the_access_log_has_a_line_of_json_for_each_request_and_no_prompt(alone, caplog):
    caplog.set_level(logging.INFO, "herdlm.access")
    logging.getLogger("herdlm.access").propagate = True
    answer = alone.client.chat.completions.with_raw_response.create(**CHAT, max_tokens=3, stream=True)
    list(answer.parse())
    httpx.get(alone.url.removesuffix("v1") + "health")
    httpx.get(f"{alone.url}/nowhere")
    eventually(lambda: "nowhere" in caplog.text)
    messages = dict.fromkeys(record.message for record in caplog.records if record.name == "herdlm.access")
    first, second = map(json.loads, messages)
    assert first["id"] == answer.headers["x-request-id"]
    assert (first["method"], first["path"], first["status"]) == ("POST", "/v1/chat/completions", 200)
    assert first["model"] == "flagship" and first["completion_tokens"] == 3 and first["stream"] is True
    assert 0 < first["first_token_ms"] <= first["total_ms"] and first["key"] is None
    assert (second["status"], second["error"]) == (404, "not_found")
    assert "secret" not in caplog.text


def test_the_access_log_has_prompts_where_that_was_asked_for(folder, caplog):
    caplog.set_level(logging.INFO, "herdlm.access")
    with running(folder, log_texts=True) as server:
        logging.getLogger("herdlm.access").propagate = True
        server.client.chat.completions.create(**CHAT, max_tokens=1)
        eventually(lambda: "texts" in caplog.text)
    assert json.loads(caplog.records[0].message)["texts"] == ["Tell me a secret, please"]
