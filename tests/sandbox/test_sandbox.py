"""Programs: what they get, what is reported of them, and that nothing of them stays."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from herdlm.base.errors import InputError
from herdlm.sandbox import isolation
from herdlm.sandbox.isolation import UNPROTECTED
from herdlm.sandbox.limits import MIB, Limits
from herdlm.sandbox.sandbox import Job, Sandbox, TestJob, open_sandbox
from herdlm.sandbox.worker import SOURCE, Command, Zygote

SMALL = Limits(wall_seconds=30, cpu_seconds=10, memory_bytes=128 * MIB, output_bytes=1000, disk_bytes=MIB)


def test_a_program_gets_its_input_and_gives_its_output(sandbox):
    result = sandbox.run("import sys\nprint(input(), 'é')\nprint('why', file=sys.stderr)\nsys.exit(3)", stdin="hello\n")
    assert (result.status, result.exit_code) == ("error", 3)
    assert (result.stdout, result.stderr) == ("hello é\n", "why\n")
    assert result.seconds > 0 and result.cpu_seconds > 0


def test_a_program_runs_as_the_main_module_and_its_traceback_shows_its_lines(sandbox):
    result = sandbox.run("import sys\nif __name__ == '__main__':\n    print(sys.argv)\n    1 / 0\n")
    assert result.stdout == "['/tmp/main.py']\n"
    assert '  File "/tmp/main.py", line 4, in <module>\n    1 / 0' in result.stderr
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert "herdlm" not in result.stderr


@pytest.mark.parametrize(
    ("program", "status", "code"),
    [
        ("pass", "ok", 0),
        ("exit()", "ok", 0),
        ("raise SystemExit('no')", "error", 1),
        ("def f(:", "error", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "error", -15),
        ("import ctypes; ctypes.string_at(0)", "error", -11),
        ("import time; time.sleep(60)", "timeout", -9),
        ("x = b'x' * 10**10", "memory", 1),
        ("while True: print('x' * 100)", "output", -9),
        ("open('x', 'wb').write(b'x' * 2**24)", "disk", 1),
        ("import atexit; atexit.register(print, 'bye')", "ok", 0),
        ("import threading; threading.Thread(target=print, args=('late',)).start()", "ok", 0),
    ],
)
def test_the_status_says_what_ended_a_program(sandbox, program, status, code):
    limits = replace(SMALL, wall_seconds=0.5) if status == "timeout" else SMALL
    result = sandbox.run(program, limits=limits)
    assert (result.status, result.exit_code) == (status, code), result.stderr


def test_what_ends_late_is_still_printed(sandbox):
    program = (
        "import atexit, threading, time\natexit.register(print, 'bye')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()\nprint('first')\n"
    )
    assert sandbox.run(program).stdout == "first\nlate\nbye\n"


def test_processor_time_of_all_processes_counts(sandbox):
    program = "import os\nos.fork()\nos.fork()\nwhile True: pass\n"
    assert sandbox.run(program, limits=replace(SMALL, cpu_seconds=1, wall_seconds=60)).status == "cpu"


def test_output_is_kept_up_to_its_limit(sandbox):
    result = sandbox.run("print('x' * 5000)", limits=SMALL)
    assert (result.status, result.stdout) == ("output", "x" * 1000)


def test_much_input_and_output_cross_at_the_same_time(sandbox):
    text = "line\n" * 200_000
    result = sandbox.run("import sys\nfor line in sys.stdin: print(line, end='')", stdin=text)
    assert result.status == "ok" and result.stdout == text


def test_a_program_need_not_read_its_input(sandbox):
    assert sandbox.run("pass", stdin="x" * 2**20).status == "ok"


def test_files_of_a_run_lie_in_its_folder(sandbox):
    program = "import os\nprint(open('data/a.txt').read(), open('b', 'rb').read())\nopen('data/new', 'w')\nimport tool"
    files = {"data/a.txt": "text", "b": b"\xff\x00", "tool.py": "print('imported')"}
    result = sandbox.run(program, files=files)
    assert result.stdout == "text b'\\xff\\x00'\nimported\n", result.stderr


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a\0b"])
def test_files_outside_the_folder_are_refused(sandbox, name):
    with pytest.raises(InputError, match="leads outside"):
        sandbox.run("pass", files={name: "x"})


def test_other_interpreters_run_their_programs(sandbox):
    result = sandbox.run('read line; echo "$line $((6 * 7))"; ls -A | tr "\\n" " "', interpreter="sh", stdin="it is\n")
    assert (result.status, result.stdout) == ("ok", "it is 42\nprogram ")


def test_an_interpreter_that_does_not_exist_is_refused(sandbox):
    with pytest.raises(InputError, match="no-such-interpreter"):
        sandbox.run("", interpreter="no-such-interpreter")


def test_each_run_starts_clean(sandbox):
    look = (
        "import os, sys\nmodules = [m for m in sys.modules if 'herdlm' in m]\n"
        "print(os.listdir(), sorted(os.environ), modules, 'x' in globals())"
    )
    first = sandbox.run(look + "\nopen('left', 'w'); os.environ['LEFT'] = ''; x = 1; sys.modules['herdlm'] = sys")
    assert first.status == "ok"
    second = sandbox.run(look)
    assert second.stdout == first.stdout
    assert "LEFT" not in second.stdout and "['main.py']" in second.stdout and "False" in second.stdout


def test_random_numbers_differ_between_runs(sandbox):
    assert (
        sandbox.run("import random; print(random.random())").stdout
        != sandbox.run("import random; print(random.random())").stdout
    )


def test_jobs_keep_their_order_and_use_all_workers():
    with open_sandbox(workers=2) as opened:
        jobs = [Job(f"import time; time.sleep({0.2 if n == 0 else 0}); print({n})") for n in range(6)]
        assert [result.stdout for result in opened.map(jobs)] == [f"{n}\n" for n in range(6)]
        mixed = list(opened.map([Job("print(1)"), TestJob("def f(): return 1", "assert f() == 1")]))
        assert mixed[0].stdout == "1\n" and mixed[1].passed
        # Each of two jobs waits for the other's sign, which crosses by a pair of threads outside.
        barrier = threading.Barrier(2, timeout=60)
        execute = [worker.execute for worker in opened._all]
        for worker, original in zip(opened._all, execute, strict=True):
            worker.execute = lambda job, tests, original=original: (barrier.wait(), original(job, tests))[1]
        assert [result.status for result in opened.map([Job("pass"), Job("pass")])] == ["ok", "ok"]


def test_a_worker_whose_process_ended_is_replaced(sandbox):
    worker = sandbox._all[0]
    if not isinstance(worker, Zygote):
        pytest.skip("needs namespaces")
    os.killpg(worker._process.pid, signal.SIGKILL)
    assert sandbox.run("print(1)").status == "lost"
    assert sandbox.run("print(1)").stdout == "1\n"


def test_a_worker_outlives_the_thread_that_started_it(sandbox):
    opened = []
    thread = threading.Thread(target=lambda: opened.append(open_sandbox(workers=1)))
    thread.start()
    thread.join()
    with opened[0] as started:
        time.sleep(0.2)
        assert [started.run("print(1)").stdout for _ in range(3)] == ["1\n"] * 3


def processes_below(process):
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        for child in path.read_text().split():
            found += [int(child), *processes_below(int(child))]
    return found


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_one_that_opened_the_sandbox(sandbox, how):
    if sandbox.isolation != "namespaces":
        pytest.skip("needs namespaces")
    code = (
        "import threading, time\nfrom herdlm.sandbox.sandbox import open_sandbox\nopened = open_sandbox(workers=2)\n"
        "threading.Thread(target=opened.run, args=('import time; time.sleep(100)',), daemon=True).start()\n"
        "print(flush=True)\ntime.sleep(100)\n"
    )
    environment = os.environ | {"PYTHONPATH": SOURCE}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as opener:
        opener.stdout.readline()
        while len(below := processes_below(opener.pid)) < 6:  # two launchers, two zygotes, supervisor and program
            time.sleep(0.05)
        opener.send_signal(how)
        opener.wait()
    while any(is_running(process) for process in below):
        time.sleep(0.05)


def test_an_isolation_that_does_not_hold_is_not_used(monkeypatch):
    monkeypatch.setattr(isolation, "KINDS", {"namespaces": ("", isolation._unprotected)})
    with pytest.raises(InputError) as caught:
        open_sandbox()
    assert "namespaces: a first run reached a file of this machine" in caught.value.what
    assert "herdlm sandbox serve" in caught.value.remedy and UNPROTECTED in caught.value.remedy


def test_without_isolation_it_refuses_and_says_how_to_get_one(monkeypatch):
    broken = {
        "one": ("no-such-program", Zygote),
        "two": ("", lambda setup: Command(setup, lambda _: ["false"], "", "")),
    }
    monkeypatch.setattr(isolation, "KINDS", broken)
    with pytest.raises(InputError) as caught:
        open_sandbox()
    assert "one: no-such-program is not installed; two: a first run ended with lost" in caught.value.what
    assert "bubblewrap" in caught.value.remedy


def test_the_next_isolation_is_taken_if_the_first_does_not_hold(monkeypatch, sandbox):
    kinds = {"first": ("", isolation._unprotected), "second": isolation.KINDS[sandbox.isolation]}
    monkeypatch.setattr(isolation, "KINDS", kinds)
    with open_sandbox(workers=1) as opened:
        assert opened.isolation == "second"


def test_only_a_key_in_so_many_words_runs_without_isolation(tmp_path):
    for name in ("none", "None", "unprotected", ""):
        with pytest.raises(InputError, match="is none"):
            open_sandbox(name)
    with open_sandbox(UNPROTECTED, workers=1) as opened:
        result = opened.run(f"import os; open({str(tmp_path / 'x')!r}, 'w'); print(os.getcwd(), sorted(os.environ))")
        assert (tmp_path / "x").exists()
        folder, _, names = result.stdout.partition(" ")
        assert not Path(folder).exists() and "HOME" in names and "PYTEST_CURRENT_TEST" not in names
        # A process that leaves its session and ignores signals ends with the run here, too.
        program = (
            "import os, signal, time\nif os.fork() == 0:\n    os.setsid()\n"
            "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "    print(os.getpid(), flush=True)\n    time.sleep(100)\ntime.sleep(0.3)\n"
        )
        left = opened.run(program)
        assert left.status == "ok" and not is_running(left.stdout.strip())


def test_programs_read_what_they_are_shown(sandbox):
    if sandbox.isolation == UNPROTECTED:
        pytest.skip("needs an isolation")
    folder = Path(__file__).parent
    if folder.is_relative_to("/tmp"):
        pytest.skip("the checkout is where programs have their own folder")
    with open_sandbox(workers=1, readable=[folder / "mutants.py"], packages=[folder]) as opened:
        result = opened.run(f"import mutants; print(len(open({str(folder / 'mutants.py')!r}).read()) > 0)")
        assert result.stdout == "True\n", result.stderr
        denied = opened.run(f"open({str(folder / 'mutants.py')!r}, 'a')")
        assert denied.status == "error"


def test_folders_that_programs_could_not_see_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_sandbox(readable=["/no/such/folder"])
    if tmp_path.is_relative_to("/tmp"):
        with pytest.raises(InputError, match="each program's own"):
            open_sandbox(packages=[tmp_path])


@pytest.mark.parametrize(
    "wrong",
    [
        dict(cpu_seconds=0),
        dict(wall_seconds=float("inf")),
        dict(wall_seconds=float("nan")),
        dict(memory_bytes=1000),
        dict(processes=0),
        dict(open_files=2.5),
        dict(output_bytes=True),
        dict(disk_bytes="1"),
    ],
)
def test_limits_are_checked(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Limits(**wrong)


def test_limits_cross_as_a_dictionary():
    assert Limits.from_dict(vars(SMALL)) == SMALL
    with pytest.raises(InputError, match="time is not a limit"):
        Limits.from_dict({"time": 1})


def test_no_workers_are_refused():
    with pytest.raises(InputError, match="workers = 0"):
        open_sandbox(workers=0)


def test_a_sandbox_is_closed_with_its_processes(sandbox):
    opened = open_sandbox(workers=1)
    assert isinstance(opened, Sandbox)
    below = processes_below(opened._all[0]._process.pid) if isinstance(opened._all[0], Zygote) else []
    opened.close()
    while any(is_running(process) for process in below):
        time.sleep(0.05)
