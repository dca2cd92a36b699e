"""One command on several processes: what the user sees of it when one of them fails."""

import json
import signal

import pytest

from herdlm.base.errors import InputError
from herdlm.parallel import launcher
from tests.run.conftest import herdlm
from tests.scaling.test_anneal_probe import KEYS, data  # noqa: F401 - a fixture


def on_two(command, data, out, *overrides):  # noqa: F811
    keys = [word for key in [*KEYS, *overrides] for word in ("--set", key)]
    folders = ("--tokens", data / "tokens", "--tokenizer", data / "tokenizer", "--model", "small", "--out", out)
    return herdlm(*command, *folders, *keys, "--processes", 2)


def one_line(done):
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_layout_that_the_processes_cannot_fill_is_one_line_and_exit_code_2(data, tmp_path):  # noqa: F811
    done = on_two(["train", "recipes/tiny.toml"], data, tmp_path / "model", "parallel.tp=3")
    assert one_line(done).startswith("herdlm: ")
    assert "parallel" in done.stderr
    assert done.returncode == 2


@pytest.mark.slow
def test_a_probe_reports_its_errors_alike_and_debug_adds_tracebacks(data, tmp_path):  # noqa: F811
    command = ["anneal-probe", "recipes/tiny.toml", "--new", data / "nowhere"]
    done = on_two(command, data, tmp_path / "probe")
    assert "nowhere" in one_line(done)
    assert done.returncode == 2
    shown = on_two(["--debug", *command], data, tmp_path / "probe")
    assert shown.stderr.count("Traceback (most recent call last)") >= 2
    assert shown.stderr.splitlines()[-1] == done.stderr.strip()


@pytest.fixture
def fail(tmp_path, monkeypatch):
    """Record an error as the process of a rank does."""
    monkeypatch.setenv(launcher.FOLDER, str(tmp_path))

    def as_rank(rank, error):
        monkeypatch.setenv("RANK", str(rank))
        with pytest.raises(type(error)), launcher.recorded_errors():
            raise error

    return as_rank


def test_the_error_for_the_user_goes_before_those_that_it_caused(fail, tmp_path):
    fail(0, RuntimeError("connection closed by peer"))
    fail(1, InputError("tp 3 does not divide 2 processes", "Set parallel.tp"))
    error = launcher._first_error(tmp_path, {0: 1, 1: 2}, 2)
    assert (str(error), error.exit_code) == ("tp 3 does not divide 2 processes. Set parallel.tp", 2)


def test_the_first_of_several_unexpected_errors_shows_its_traceback(fail, tmp_path, capsys):
    fail(1, ZeroDivisionError("the cause"))
    fail(0, RuntimeError("connection closed by peer"))
    error = launcher._first_error(tmp_path, {0: 1, 1: 1}, 2)
    assert (str(error), error.exit_code) == ("process 1 of 2 failed with ZeroDivisionError: the cause", 1)
    trace = capsys.readouterr().err
    assert trace.count("Traceback") == 1
    assert trace.endswith("ZeroDivisionError: the cause\n")


def test_a_process_ended_by_a_signal_is_named(fail, tmp_path):
    fail(0, RuntimeError("connection closed by peer"))
    error = launcher._first_error(tmp_path, {0: -signal.SIGTERM, 1: -signal.SIGKILL}, 2)
    assert str(error).startswith("process 1 of 2 was ended by SIGKILL. ")
    assert error.exit_code == 1


def test_a_full_disk_is_an_error_for_the_user(fail, tmp_path):
    fail(0, OSError(28, "No space left on device", "/data/model"))
    record = json.loads((tmp_path / "0.json").read_text())
    assert record["expected"]
    assert record["what"] == "no space left on the disk of /data/model"


def test_without_a_launcher_nothing_is_recorded(monkeypatch):
    monkeypatch.delenv(launcher.FOLDER, raising=False)
    monkeypatch.setenv("RANK", "0")
    assert not launcher.record_error(InputError("the user's own torchrun prints it"))
