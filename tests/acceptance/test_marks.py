"""A start after kill -9 reads only what came behind the last marks, and nothing is lost."""
import os
import signal

import harness
from test_clients import create, produce
from test_swap import read_all

VALUE = b"x" * 20_000


def checkpointed(karst, topic):
    """The recovery point that the next start would go by; -1: none."""
    try:
        with open(os.path.join(karst.data, "recovery-point-offset-checkpoint"), encoding="utf-8") as f:
            lines = [line.split() for line in f]
    except FileNotFoundError:
        return -1
    return next((int(line[2]) for line in lines if len(line) == 3 and line[0] == topic), -1)


def bytes_read(pid):
    with open(f"/proc/{pid}/io", encoding="utf-8") as f:
        return int(next(line.split()[1] for line in f if line.startswith("rchar:")))


def read_at_start(karst):
    """kill -9 of storage; what its next life has read when it serves again."""
    pid = karst.pids()["storage"]
    os.kill(pid, signal.SIGKILL)
    harness.wait_until(lambda: karst.pids().get("storage") not in (pid, 0, None), 20, "the next storage process")
    count = len(read_all(karst, "marked", 1100))
    assert count == 1100
    return bytes_read(karst.pids()["storage"])


def run(folder, most):
    karst = harness.Karst(folder, config={"karst.recovery.max.bytes": most, "log.flush.offset.checkpoint.interval.ms": 200})
    try:
        karst.start()
        create(karst, "marked", 1)
        produce(karst, "marked", lambda i: 0, (VALUE + b"%d" % i for i in range(1000)), **{"enable.idempotence": True})
        if most == 0:
            harness.wait_until(lambda: checkpointed(karst, "marked") == 1000, 20, "a checkpoint of all records")
        produce(karst, "marked", lambda i: 0, (b"behind %d" % i for i in range(100)), **{"enable.idempotence": True})
        return read_at_start(karst)
    finally:
        karst.close()


def test_a_start_reads_what_is_not_marked(own_folder):
    """20 MB in one segment: what is marked is not read again, and without marks all of it is."""
    marked = run(os.path.join(own_folder, "a"), 0)
    unmarked = run(os.path.join(own_folder, "b"), 1 << 30)
    # Both read the records once for the reader, but for what goes from file to socket.
    assert unmarked - marked > 15_000_000, f"{marked} bytes with marks, {unmarked} without"
