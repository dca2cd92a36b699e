"""Control groups: where one is made, and what is written to its files. Folders stand in for the kernel's."""

import os

import pytest

from herdlm.sandbox import control_group
from herdlm.sandbox.control_group import OVERHEAD_BYTES, make, parents
from herdlm.sandbox.limits import MIB, Limits
from herdlm.sandbox.sandbox import open_sandbox


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """A tree of groups as systemd makes it for a user: the service's own group has processes, its slice can limit."""
    own = tmp_path / "user.slice" / "app.slice" / "own.service"
    own.mkdir(parents=True)
    (tmp_path / "own").write_text("1:name=systemd:/x\n0::/user.slice/app.slice/own.service\n")
    for group, controllers in (
        (own, ""),
        (own.parent, "cpu memory pids"),
        (own.parent.parent, "memory"),
        (tmp_path, "pids"),
    ):
        (group / "cgroup.subtree_control").write_text(controllers + "\n")
    monkeypatch.setattr(control_group, "MOUNT", tmp_path)
    monkeypatch.setattr(control_group, "OWN", tmp_path / "own")
    return own.parent


def test_a_group_is_made_where_memory_and_processes_can_be_limited(mounted):
    assert parents() == [mounted]


def test_limits_and_the_process_are_written(mounted, monkeypatch):
    monkeypatch.setattr(control_group.ControlGroup, "kills", lambda self: 0)
    group = make(4711, Limits(memory_bytes=100 * MIB, disk_bytes=10 * MIB, processes=5))
    folder = next(mounted.glob(f"herdlm-sandbox-{os.getpid()}-*"))
    read = {path.name: path.read_text() for path in folder.iterdir()}
    assert read["memory.max"] == f"{110 * MIB + OVERHEAD_BYTES}\n" and read["memory.swap.max"] == "0\n"
    assert (read["pids.max"], read["cgroup.procs"]) == ("13\n", "4711\n")
    group.limit(Limits(processes=1))
    assert (folder / "pids.max").read_text() == "9\n"


def test_processes_killed_for_memory_are_counted(mounted):
    (mounted / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert control_group.ControlGroup(mounted).kills() == 2


def test_without_the_right_there_is_none(mounted, monkeypatch):
    assert make(4711, Limits()) is None  # a folder of the kernel's would have memory.events
    monkeypatch.setattr(control_group, "OWN", mounted / "missing")
    assert parents() == [] and make(4711, Limits()) is None


def test_a_run_that_the_kernel_ended_for_memory_says_so(sandbox, monkeypatch):
    if sandbox.isolation != "namespaces":
        pytest.skip("needs namespaces")

    class Group:
        counted = 0

        def limit(self, limits):
            pass

        def kills(self):
            self.counted += 1
            return self.counted

        def remove(self):
            self.counted = -1

    made = Group()
    monkeypatch.setattr(control_group, "make", lambda process, limits: made)
    with open_sandbox("namespaces", workers=1) as opened:
        assert opened.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").status == "memory"
        assert opened.run("pass").status == "ok"
    assert made.counted == -1
