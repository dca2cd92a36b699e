"""API keys: what the file holds, how they are compared, and what the server lets in."""

import hmac
import json
import stat

import httpx
import openai
import pytest

from herdlm.base.errors import DamagedError, InputError
from herdlm.cli.app import app
from herdlm.serve.access import keys as keys_module
from herdlm.serve.access.keys import KeyFile, key_hash
from herdlm.serve.server import serve
from tests.serve.conftest import running


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path / "keys.json")


def test_the_file_holds_no_key_and_is_its_owners_alone(file):
    secret = file.add("ann", requests_per_minute=5)
    text = file.path.read_text()
    assert secret.startswith("herdlm-") and len(secret) > 48
    assert secret not in text and secret.removeprefix("herdlm-") not in text
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    (entry,) = json.loads(text)["keys"]
    assert entry["name"] == "ann" and entry["sha256"] == key_hash(secret) and entry["requests_per_minute"] == 5


def test_keys_are_found_until_they_are_revoked_also_by_one_who_read_the_file_before(file):
    server = KeyFile(file.path)
    ann, bob = file.add("ann"), file.add("bob")
    assert server.find(ann).name == "ann" and server.find(bob).name == "bob"
    assert server.find(ann + "x") is None and server.find("") is None and server.find("\udce9") is None
    file.revoke("ann")
    assert server.find(ann) is None and server.find(bob).name == "bob"
    with pytest.raises(InputError, match=r"no key named ann.*It has bob"):
        file.revoke("ann")
    with pytest.raises(InputError, match="has a key named bob"):
        file.add("bob")
    with pytest.raises(InputError, match="name = 'a b'"):
        file.add("a b")


def test_a_key_is_compared_with_every_entry_in_constant_time(file, monkeypatch):
    secrets = [file.add(f"key-{i}") for i in range(5)]
    compared, compare = [], hmac.compare_digest

    def counting(ours, theirs):
        compared.append((ours, theirs))
        return compare(ours, theirs)

    monkeypatch.setattr(keys_module.hmac, "compare_digest", counting)
    for secret in (secrets[0], secrets[4], "herdlm-wrong"):
        compared.clear()
        file.find(secret)
        assert [ours for ours, _ in compared] == [key_hash(each) for each in secrets]


def test_a_file_that_is_none_is_told(file):
    with pytest.raises(InputError, match="key file .* does not exist"):
        file.entries()
    file.path.write_text('{"keys": [{"name": "x", "secret": "y"}]}')
    with pytest.raises(DamagedError, match="is not a key file"):
        file.entries()


def test_the_command_line_makes_lists_and_revokes_keys(file, capsys):
    def run(*arguments):
        app(["keys", *arguments, "--file", str(file.path)], standalone_mode=False)
        return capsys.readouterr().out.strip()

    secret = run("add", "ann", "--tokens-per-minute", "1000")
    assert file.find(secret).tokens_per_minute == 1000
    run("add", "bob")
    assert run("list") == "ann: tokens_per_minute 1000\nbob: no limits"
    assert [key["name"] for key in json.loads(run("list", "--json"))] == ["ann", "bob"]
    assert "sha256" not in run("list", "--json")
    run("revoke", "ann")
    assert run("list") == "bob: no limits"


TEXT = {"model": "flagship", "prompt": "The", "max_tokens": 8}


def test_with_keys_only_their_holders_are_answered(folder, file):
    ann = file.add("ann")
    with running(folder, keys=file) as server:
        assert server.client_with(ann).completions.create(**TEXT).usage.completion_tokens == 8
        for wrong in ("none", ann[:-1], ann.upper()):
            with pytest.raises(openai.AuthenticationError, match="the API key is wrong") as caught:
                server.client_with(wrong).completions.create(**TEXT)
            assert caught.value.code == "invalid_api_key"
        base = server.url.removesuffix("/v1")
        for path in ("/v1/models", "/tokenizer_info", "/metrics", "/v1/nowhere"):
            assert httpx.get(base + path).status_code == 401
            assert httpx.get(base + path, headers={"authorization": "Basic eDp5"}).status_code == 401
        assert httpx.get(f"{base}/health").status_code == 200
        file.revoke("ann")
        with pytest.raises(openai.AuthenticationError):
            server.client_with(ann).models.list()
        file.path.write_text("{")
        with pytest.raises(openai.InternalServerError, match="cannot check API keys") as caught:
            server.client_with(ann).models.list()
        assert caught.value.status_code == 503


def test_without_keys_it_serves_this_machine_alone_unless_told(folder, file):
    with pytest.raises(InputError, match=r"other machines can reach 0\.0\.0\.0.*--no-keys"):
        serve([folder], host="0.0.0.0", port=0)
    with pytest.raises(InputError, match="key file .* does not exist"):
        serve([folder], host="0.0.0.0", port=0, keys=file.path)
