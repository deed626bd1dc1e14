"""A topic that is deleted and made again is a new one: nothing that was noted of the old one is taken for its own after a kill."""
import os
import signal

import harness
from test_clients import create, produce
from test_same_files import delete_records


def test_a_topic_made_again_keeps_its_records_after_a_kill(own_karst):
    own_karst.start()
    create(own_karst, "twice", 1)
    produce(own_karst, "twice", lambda i: 0, (b"old %d" % i for i in range(100)))
    delete_records(own_karst, "twice", 100)
    assert own_karst.tool("topics", "--delete", "--topic", "twice").status == 0
    create(own_karst, "twice", 1)
    produce(own_karst, "twice", lambda i: 0, (b"new %d" % i for i in range(5)))
    pid = own_karst.pids()["storage"]
    os.kill(pid, signal.SIGKILL)
    harness.wait_until(lambda: own_karst.pids().get("storage") not in (pid, None), what="a new storage process")
    found = own_karst.kcat("-C", "-e", "-q", "-t", "twice", "-p", "0").out.split("\n")
    assert found[:5] == [f"new {i}" for i in range(5)], own_karst.log()
