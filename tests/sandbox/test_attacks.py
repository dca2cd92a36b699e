"""No attack gets out, hangs or passes; some of them are shown to succeed where nothing holds them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from herdlm.sandbox import worker
from herdlm.sandbox.attacks import ATTACKS, LIMITS
from herdlm.sandbox.check import run_attack, run_attacks
from herdlm.sandbox.isolation import UNPROTECTED
from herdlm.sandbox.sandbox import open_sandbox

BY_NAME = {attack.name: attack for attack in ATTACKS}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attacks_are_contained(sandbox, attacked, attack):
    outcome = run_attack(sandbox, attack, attacked)
    assert outcome.escaped == ""


def test_the_set_has_attacks_of_every_kind_under_names_of_their_own():
    assert len(BY_NAME) == len(ATTACKS) >= 40
    kinds = {"limits", "network", "files", "privileges", "processes", "memory", "leftovers", "verdict"}
    assert {attack.kind for attack in ATTACKS} == kinds


@pytest.mark.parametrize(
    "name",
    [
        "reading a file of this machine",
        "a path with ..",
        "a symbolic link",
        "seeing processes of this machine",
        "reading accounts and settings",
        "/proc/self/root and /proc/1/root",
    ],
)
def test_the_same_attack_gets_out_where_there_is_no_isolation(attacked, name):
    with open_sandbox(UNPROTECTED, workers=1) as unprotected:
        outcome = run_attack(unprotected, BY_NAME[name], attacked)
    attacked.reached.clear()
    assert outcome.escaped


@pytest.mark.parametrize(
    "name",
    [
        "exiting with 0 at the top",
        "raising SystemExit",
        "an object that equals everything",
        "an object that is near everything",
        "a text that equals everything",
        "an object that contains everything",
        "taking the names of built-in functions",
        "patching modules that the tests use",
        "ending the tests' loop by StopIteration",
        "exiting with 0 in the function",
    ],
)
def test_the_same_code_passes_where_it_shares_a_process_with_its_tests(sandbox, name):
    attack = BY_NAME[name]
    assert sandbox.run(f"{attack.program}\n{attack.tests}", limits=LIMITS).status == "ok"


def test_damage_to_this_machine_is_noticed(attacked):
    assert attacked.damage() == ""
    (attacked.folder / "new").touch()
    assert attacked.damage() == "wrote new on this machine"
    (attacked.folder / "new").unlink()
    attacked.canary.write_text("changed")
    assert attacked.damage() == "changed a file"
    attacked.canary.write_text(attacked.token)
    attacked.reached.append("tcp")
    assert attacked.damage() == "reached the listener tcp"
    attacked.reached.clear()
    code = f"import ctypes; ctypes.CDLL(None).prctl(15, b'{attacked.token}'); print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as survivor:
        survivor.stdout.readline()
        assert attacked.damage() == f"left process {survivor.pid}"
        survivor.communicate(b"\n")
    assert attacked.damage() == ""


@pytest.mark.slow
@pytest.mark.parametrize(("isolation", "program"), [("bubblewrap", "bwrap"), ("nsjail", "nsjail")])
def test_attacks_are_contained_by_other_isolations(attacked, isolation, program):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    with open_sandbox(isolation, workers=1) as opened:
        assert [outcome for outcome in run_attacks(opened, attacked) if outcome.escaped] == []


AS_NOBODY = """
import sys
from herdlm.sandbox.check import run_attacks, scene
from herdlm.sandbox.sandbox import open_sandbox
with scene() as made, open_sandbox(sys.argv[1], workers=1) as opened:
    escaped = [(o.attack.name, o.escaped) for o in run_attacks(opened, made) if o.escaped]
print(opened.isolation, escaped)
"""


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["namespaces", "bubblewrap"])
def test_attacks_are_contained_when_an_ordinary_user_runs_them(isolation):
    python = Path("/usr/bin/python3")
    if os.geteuid() or not python.exists():
        pytest.skip("needs root, to become an ordinary user, and the system's Python")
    if isolation == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    environment = {"PYTHONPATH": worker.SOURCE, "HOME": "/nonexistent", "PATH": os.environ["PATH"]}
    as_nobody = dict(user=65534, group=65534, extra_groups=[], env=environment, cwd="/", text=True, capture_output=True)
    ready = "import sys, herdlm; sys.exit(sys.version_info < (3, 11))"
    if subprocess.run([python, "-c", ready], **as_nobody).returncode:
        pytest.skip("the system's Python is too old, or herdlm lies where another user cannot read it")
    done = subprocess.run([python, "-c", AS_NOBODY, isolation], **as_nobody)
    assert done.stdout == f"{isolation} []\n", done.stderr
