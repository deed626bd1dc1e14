"""A topic that is deleted and made again is a new one: nothing that was noted of the old one is taken for its own after a kill."""
import glob
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


def test_damaged_files_of_an_older_topic_are_set_aside(own_karst):
    """They were left by a topic that was deleted while the node was away: the one that has its name now gets a folder of its own."""
    own_karst.start()
    create(own_karst, "twice", 1)
    produce(own_karst, "twice", lambda i: 0, (b"old %d" % i for i in range(10)))
    own_karst.stop()
    folder = os.path.join(own_karst.data, "twice-0")
    with open(os.path.join(folder, "00000000000000000000.log"), "r+b") as f:
        f.seek(64)
        f.write(b"\xff\xff\xff")
    with open(os.path.join(folder, "partition.metadata"), "w", encoding="ascii") as f:
        f.write("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABQ")
    os.unlink(os.path.join(own_karst.data, ".kafka_cleanshutdown"))
    own_karst.start()
    harness.wait_until(lambda: glob.glob(folder + ".*-stray"), what="the older topic's files set aside")
    produce(own_karst, "twice", lambda i: 0, (b"new %d" % i for i in range(5)))
    found = own_karst.kcat("-C", "-e", "-q", "-t", "twice", "-p", "0").out.split("\n")
    assert found[:5] == [f"new {i}" for i in range(5)], own_karst.log()
