"""Groups of this machine's processes open no port that another machine could reach."""

import datetime
import json
import os
from collections import Counter

from herdlm.parallel.launcher import launch
from herdlm.parallel.loopback import INTERFACES, loopback_store
from tests.parallel.meeting import listening

LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


def test_a_store_listens_on_loopback_alone():
    before = Counter(listening(os.getpid()))  # other tests in this process may have left some
    store = loopback_store(1, datetime.timedelta(seconds=20))
    store.set("a", "b")
    assert store.get("a") == b"b"
    opened = Counter(listening(os.getpid())) - before
    assert opened and set(opened) <= LOOPBACK


def test_launched_processes_meet_and_listen_on_loopback_alone(tmp_path):
    before = dict(os.environ)
    launch(2, [str(tmp_path)], 1, "tests.parallel.meeting")
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [each["total"] for each in told] == [3.0, 3.0]
    assert all(set(each["own"]) | set(each["agent"]) <= LOOPBACK for each in told), told
    assert {name: os.environ.get(name) for name in INTERFACES} == {name: before.get(name) for name in INTERFACES}
