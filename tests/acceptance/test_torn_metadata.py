"""A partition.metadata that a power cut tore says no more whose the folder is. (A real Kafka 4.3.1 ends on an empty one, takes the
directory of a torn one offline, and sets the folder aside where it is missing.)"""
import glob
import os
import signal

from harness import wait_until
from test_clients import create as create_one, produce as produce_to_one
from test_replication import NODES, all_in_sync, create, folder_of, partitions_of, produce, same_everywhere, three  # noqa: F401: a fixture
from test_same_files import delete_records

KINDS = {"empty": b"", "cut": b"version: 0\ntopic_id: ", "zeros": bytes(43)}


def tear(folder, kind):
    with open(os.path.join(folder, "partition.metadata"), "wb") as f:
        f.write(KINDS[kind])


def point_of(folder, topic):
    path = os.path.join(folder, "recovery-point-offset-checkpoint")
    if not os.path.exists(path):
        return 0
    with open(path, encoding="ascii") as f:
        return next((int(line.split()[2]) for line in f if line.startswith(topic + " 0 ")), 0)


def pid_of(cluster, node):
    return next((p["pid"] for p in cluster.status() if p["role"] == "storage" and p["id"] == node), None)


def end_and_wait(cluster, node, how=signal.SIGKILL):
    before = pid_of(cluster, node)
    os.kill(before, how)
    wait_until(lambda: pid_of(cluster, node) not in (before, None), 60, f"another life of node {node}")


def test_the_only_replica_of_which_nothing_was_flushed_opens_with_its_log_start(own_karst):
    """DeleteRecords waits for a checkpoint, not for a flush: its log start says nothing of what is durable besides."""
    own_karst.start()
    create_one(own_karst, "alone", 1)
    produce_to_one(own_karst, "alone", lambda i: 0, (b"value %d" % i for i in range(10)))
    delete_records(own_karst, "alone", 4)
    tear(os.path.join(own_karst.data, "alone-0"), "cut")
    assert point_of(own_karst.data, "alone") == 0
    pid = own_karst.pids()["storage"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: own_karst.pids().get("storage") not in (pid, None), what="a new storage process")
    found = own_karst.kcat("-C", "-e", "-q", "-t", "alone", "-p", "0", "-f", "%o %s\n").out.split("\n")
    assert found[:-1] == [f"{i} value {i}" for i in range(4, 10)], own_karst.log()


def test_a_replica_is_filled_again_by_the_others(three):
    """Also where the checkpoint has a recovery point above 0, and so the file was damaged by something else."""
    create(three, "torn", 1, **{"min.insync.replicas": "2"})
    assert produce(three, "torn", 0, [b"value %d" % i for i in range(10)])[1] == []
    wait_until(lambda: all_in_sync(three, "torn"), 60, "all in sync")
    for node, kind in zip(NODES, KINDS):
        folder = folder_of(three, node)
        end_and_wait(three, node, signal.SIGTERM)
        wait_until(lambda: all_in_sync(three, "torn"), 60, "all in sync")
        assert point_of(folder, "torn") >= 10
        tear(f"{folder}/torn-0", kind)
        end_and_wait(three, node)
        wait_until(lambda: glob.glob(f"{folder}/torn-0.*-stray"), 60, f"the folder of node {node} set aside")
        wait_until(lambda: all_in_sync(three, "torn"), 60, f"node {node} in sync again")
    assert produce(three, "torn", 0, [b"the last"]) == ([10], [])
    wait_until(lambda: same_everywhere(three, "torn", 1), 30, "the same bytes in all replicas")


def test_records_of_an_older_topic_of_the_name_are_not_taken(three):
    """Deleted and made again while the node stood still: what lies in its folder, under no name that can be read, is of the older one."""
    create(three, "twice", 1, **{"min.insync.replicas": "2"})
    assert produce(three, "twice", 0, [b"old %d" % i for i in range(10)])[1] == []
    wait_until(lambda: all_in_sync(three, "twice"), 60, "all in sync")
    node = next(n for n in NODES if n != partitions_of(three, "twice")[0]["LeaderId"])
    folder = folder_of(three, node)
    tear(f"{folder}/twice-0", "zeros")
    three.kill("storage", node, signal.SIGSTOP)
    wait_until(lambda: node not in partitions_of(three, "twice")[0]["IsrNodes"], 60, f"node {node} away")
    assert three.tool("topics", "--delete", "--topic", "twice").status == 0
    create(three, "twice", 1, **{"min.insync.replicas": "2"})
    assert produce(three, "twice", 0, [b"new %d" % i for i in range(15)])[1] == []
    end_and_wait(three, node)
    wait_until(lambda: all_in_sync(three, "twice"), 60, f"node {node} in sync")
    wait_until(lambda: same_everywhere(three, "twice", 1), 30, "the same bytes in all replicas")
