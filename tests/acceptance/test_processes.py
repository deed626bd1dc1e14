"""Who touches what: only the front end speaks Kafka's protocol, and it opens no data file: what it sends from one, storage has passed to it."""
import os
import re
import signal
import subprocess
import time

import pytest

import harness
from test_clients import create, produce, Reader


def listening(pid):
    """TCP ports that the process listens on."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            continue
        if found:
            inodes.add(found[1])
    ports = set()
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}", encoding="utf-8") as f:
            for line in f.readlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    ports.add(int(fields[1].rsplit(":", 1)[1], 16))
    return ports


def test_only_the_front_end_listens(karst):
    assert {role: listening(pid) for role, pid in karst.pids().items()} == \
        {role: {karst.port, karst.port + 1} if role == "frontend" else set() for role in harness.ROLES}


def data_files(karst, pid):
    """Name below the data directory and open flags of each file of it that the process holds."""
    found, data = [], os.path.realpath(karst.data)
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            path = os.readlink(f"/proc/{pid}/fd/{fd}")
            with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as f:
                flags = int(re.search(r"flags:\s*(\d+)", f.read())[1], 8)
        except OSError:
            continue
        if path.startswith(data):
            found.append((os.path.relpath(path, data), flags))
    return found


def is_passed_segment(name, flags):
    """Storage passes segments, for reading alone."""
    return name.split(" ")[0].endswith(".log") and flags & os.O_ACCMODE == os.O_RDONLY


def test_the_front_end_opens_no_data_file(karst, folder):
    """strace of a front end under load: no file of the data directory, but meta.properties at its start, which names the cluster."""
    trace = os.path.join(folder, "strace")
    strace = subprocess.Popen(["strace", "-f", "-qq", "-e", "trace=open,openat,openat2,creat,name_to_handle_at,open_by_handle_at", "-o",
                               trace, "-p", str(karst.pids()["frontend"])], stderr=subprocess.PIPE)
    try:
        time.sleep(0.5)
        if strace.poll() is not None:
            pytest.skip("strace may not attach here: " + strace.stderr.read().decode().strip())
        create(karst, "traced", 3)
        produce(karst, "traced", lambda i: i % 3, (b"x" * 500 for _ in range(20000)))
        reader = Reader(karst, "traced-readers", "traced")
        reader.start()
        harness.wait_until(lambda: len(reader.seen) >= 20000, 60, "all records")
        reader.leaving.set()
        reader.join(20)
        karst.kcat("-L")
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(20)
    with open(trace, encoding="utf-8") as f:
        lines = f.read().splitlines()
    assert not [line for line in lines if os.path.realpath(karst.data) in line]
    for name, flags in data_files(karst, karst.pids()["frontend"]):
        assert is_passed_segment(name, flags), (name, flags)


def test_each_file_has_one_owner(karst):
    """The controller owns the metadata log, storage the partitions; nobody else holds a file of the data directory."""
    create(karst, "owned", 2)
    produce(karst, "owned", lambda i: i % 2, (b"x" for _ in range(10)))
    for role, pid in karst.pids().items():
        for name, flags in data_files(karst, pid):
            if role == "controller":
                assert name in (".", ".lock") or name.startswith("__cluster_metadata-0"), (role, name)
            elif role == "storage":
                assert not name.startswith("__cluster_metadata-0"), (role, name)
            else:
                assert role == "frontend" and is_passed_segment(name, flags), (role, name, flags)


def heap_kib(pid):
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as f:
        maps = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", f.read(), flags=re.MULTILINE)
    return sum(int(re.search(r"^Rss: +(\d+)", m, re.MULTILINE)[1]) for m in maps if "[heap]" in m)


def test_memory_goes_back_after_a_burst(own_karst):
    """What the front end took for 200 producers at full speed, it gives back when they have gone."""
    own_karst.start()
    pid, peak = own_karst.pids()["frontend"], 0

    def burst():
        nonlocal peak
        with subprocess.Popen([os.path.join(harness.BIN, "karst-load"), "produce", "--bootstrap", own_karst.address, "--topic", "burst",
                               "--producers", "200", "--seconds", "3"], stdout=subprocess.DEVNULL) as load:
            while load.poll() is None:
                peak = max(peak, heap_kib(pid))
                time.sleep(0.05)
        assert load.returncode == 0
        return peak > 20 << 10
    harness.wait_until(burst, 90, "a burst that takes memory")  # on a busy machine one may be too small
    harness.wait_until(lambda: heap_kib(pid) < max(0.6 * peak, 12 << 10), 60, f"less heap than {peak} KiB")
