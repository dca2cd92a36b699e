"""The commands of the sandbox."""

import json
import os
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from herdlm.base.errors import HerdError, InputError
from herdlm.cli.app import app
from herdlm.sandbox import check, isolation
from herdlm.sandbox.isolation import UNPROTECTED
from herdlm.sandbox.sandbox import open_sandbox
from herdlm.sandbox.worker import SOURCE

KEY = "0123456789abcdef"


def invoke(*words):
    return CliRunner().invoke(app, ["sandbox", *words], catch_exceptions=False)


@pytest.fixture
def few_attacks(monkeypatch):
    try:
        open_sandbox(workers=1).close()
    except InputError as error:
        pytest.skip(str(error))
    few = [
        attack for attack in check.ATTACKS if attack.name in ("reading a file of this machine", "raising SystemExit")
    ]
    monkeypatch.setattr(check.run_attacks, "__defaults__", (few,))


def test_check_prints_what_isolation_there_is_and_a_table_of_attacks(few_attacks):
    shown = invoke("check")
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert lines[0].startswith("isolation: ")
    assert "no new privileges: yes" in lines
    assert lines[-3].split() == ["files", "reading", "a", "file", "of", "this", "machine", "ok", "contained"]
    assert lines[-1] == "2 of 2 attacks contained"
    found = json.loads(invoke("check", "--json").output)
    assert [row["escaped"] for row in found["attacks"]] == ["", ""]
    assert found["layers"]["capabilities"] == "none"


def test_check_fails_if_an_attack_gets_out(few_attacks, monkeypatch):
    monkeypatch.setattr(isolation, "probe", lambda worker, setup: "")
    monkeypatch.setattr(isolation, "KINDS", {"namespaces": ("", isolation._unprotected)})
    with pytest.raises(HerdError, match="1 attacks got out of namespaces"):
        invoke("check")


@pytest.mark.parametrize("name", [UNPROTECTED, "http://127.0.0.1:1"])
def test_check_runs_no_attacks_where_nothing_holds_or_elsewhere(name):
    with pytest.raises(InputError):
        invoke("check", "--isolation", name)


def test_a_served_sandbox_needs_a_key_and_an_isolation(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        invoke("serve", "--key-file", str(tmp_path / "none"))
    (tmp_path / "key").write_text(KEY)
    with pytest.raises(InputError, match="isolation of its own"):
        invoke("serve", "--key-file", str(tmp_path / "key"), "--isolation", UNPROTECTED)


def test_a_served_sandbox_runs_programs_until_it_is_interrupted(few_attacks, tmp_path):
    (tmp_path / "key").write_text(KEY + "\n")
    words = ["sandbox", "serve", "--key-file", str(tmp_path / "key"), "--port", "0", "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": SOURCE}
    command = [sys.executable, "-m", "herdlm.cli", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        address = server.stderr.readline().split()[-1]
        with open_sandbox(address, key=KEY, workers=1) as remote:
            assert remote.run("print(1)").stdout == "1\n"
        server.send_signal(signal.SIGINT)
        assert server.wait() == 130
