"""``herdlm serve`` with two models and a key file, as a process, and the page in a browser before it."""

import os
import subprocess
import sys

import openai
import pytest
import torch
from playwright.sync_api import expect

from herdlm.model.hf import save_folder
from herdlm.serve.access.keys import KeyFile
from tests.conftest import small_model
from tests.serve.page.conftest import WAIT

pytestmark = pytest.mark.browser

SLOW = 60_000  # milliseconds for a model's process to begin
PROGRAM = "import sys; from herdlm.cli.app import main; sys.argv[0] = 'herdlm'; main()"


@pytest.fixture(scope="module")
def two_models(tmp_path_factory, folder, tokenizer):
    """The address of a server of two different models, and a key that it takes."""
    root = tmp_path_factory.mktemp("two")
    other = small_model(seed=1)
    with torch.no_grad():
        other.lm_head.weight[-20:] *= 0  # its special tokens are not likely
        other.lm_head.weight *= 8
    save_folder(other, root / "small")
    tokenizer.save(root / "small")
    key = KeyFile(root / "keys.json").add("page")
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PROGRAM,
            "serve",
            str(folder),
            str(root / "small"),
            "--port",
            "0",
            "--keys",
            str(root / "keys.json"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        line = process.stderr.readline()
        while line and "answers at http" not in line and "answer at http" not in line:
            line = process.stderr.readline()
        url = next(word for word in line.split() if word.startswith("http://"))
        yield url.removesuffix("/v1"), key
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_two_real_models_answer_side_by_side_behind_a_key(two_models, visit):
    url, key = two_models
    seen = visit(url, takes=("401",), models=False)
    page = seen.page
    expect(page.locator("#notice")).to_contain_text("The server asks for an API key")
    page.get_by_label("API key").fill(key)
    page.get_by_label("API key").press("Tab")
    expect(page.locator("#model option")).to_have_text(["flagship", "small"])
    page.get_by_label("Compare with").select_option("small")
    page.locator("#temperature").fill("0")
    page.locator("#max_tokens").fill("12")
    page.get_by_label("Show token probabilities").check()
    seen.say("Hello there")
    expect(seen.answers()).to_have_count(2, timeout=WAIT)
    expect(page.locator("article.streaming")).to_have_count(0, timeout=SLOW)
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    asked = dict(messages=[{"role": "user", "content": "Hello there"}], temperature=0, max_tokens=12, logprobs=True)
    texts = []
    for lane, name in enumerate(("flagship", "small")):
        told = client.chat.completions.create(model=name, top_logprobs=5, **asked).choices[0].logprobs.content
        tokens = seen.answers().nth(lane).locator(".token")
        expect(tokens).to_have_count(len(told))
        tokens.first.focus()
        expect(page.locator("#token-details tr")).to_have_count(5)
        expect(page.locator("#token-details tr .number").first).to_have_text(
            f"{100 * pow(2.718281828459045, told[0].top_logprobs[0].logprob):.1f}%"
        )
        texts.append(tokens.all_inner_texts())
    assert texts[0] != texts[1]


def test_every_setting_of_the_page_is_taken_by_the_real_server(two_models, visit):
    url, key = two_models
    seen = visit(url, takes=("401",), models=False)
    seen.page.get_by_label("API key").fill(key)
    seen.page.get_by_label("API key").press("Tab")
    expect(seen.page.locator("#model option")).to_have_count(2)
    for name, value in dict(
        temperature=0.5, top_p=0.9, top_k=40, min_p=0.05, max_tokens=9, seed=-7, stop="END"
    ).items():
        seen.page.locator(f"#{name}").fill(str(value))
    seen.page.locator("#system").fill("Be brief.")
    seen.say("Hello")
    expect(seen.answers()).to_have_count(1)
    expect(seen.page.locator("article.streaming")).to_have_count(0, timeout=SLOW)
    expect(seen.page.get_by_role("alert").filter(has_text="not")).to_have_count(0)
    expect(seen.answers().locator(".facts")).to_contain_text("tokens")
