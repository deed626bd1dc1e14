"""karst up, status and down, as a person meets them."""
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

import harness
from harness import KARST, ROLES, alive, ran, run, wait_until


class Foreground:
    """A `karst up` in the foreground, its output gathered."""

    def __init__(self, karst, *more):
        self.karst = karst
        self.out = open(os.path.join(karst.folder, "out"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(karst.up_command(*more), stdout=self.out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                        start_new_session=True)

    def text(self):
        with open(self.out.name, encoding="utf-8") as f:
            return f.read()

    def wait_for(self, text, timeout=30):
        wait_until(lambda: text in self.text() or self.process.poll() is not None, timeout, f"'{text}' in the output")
        assert text in self.text(), self.text()

    def end(self, timeout=30):
        return self.process.wait(timeout)


def test_first_light(own_karst):
    """An empty folder becomes a cluster; the output says where to connect and what to try, and that works as it stands."""
    up = Foreground(own_karst)
    try:
        up.wait_for(f"Karst answers on {own_karst.address}")
        text = up.text()
        assert re.search(r"^Formatted .*, cluster id [\w-]{22}$", text, re.M), text
        commands = re.findall(r"^  (\w.*-b .*)$", text, re.M)
        assert len(commands) == 2
        assert run(["sh", "-c", commands[0]]).status == 0
        assert "hello" in run(["sh", "-c", commands[1]]).out
        up.process.send_signal(signal.SIGINT)
        assert up.end() == 0
    finally:
        up.process.kill()


def test_an_existing_directory_is_used(own_karst):
    own_karst.start()
    first = own_karst.ask("DescribeCluster", 0, {})["ClusterId"]
    own_karst.stop()
    own_karst.start()
    assert own_karst.ask("DescribeCluster", 0, {})["ClusterId"] == first


def test_status_shows_each_process(own_karst):
    outcome = run([KARST, "status", "--data", own_karst.data, "--json"])
    assert (outcome.status, outcome.out) == (3, '{"processes":[]}\n')
    own_karst.start()
    rows = own_karst.status()
    assert [p["role"] for p in rows] == list(ROLES)
    for p in rows:
        assert list(p) == ["role", "id", "pid", "state", "endpoint", "restarts", "bus_version", "memory_bytes"]
        assert (p["id"], p["state"], p["restarts"]) == (1, "running", 0) and alive(p["pid"]) and p["memory_bytes"] > 100_000
        with open(f"/proc/{p['pid']}/comm", encoding="utf-8") as f:
            assert f.read().strip() == f"karst-{p['role']}"[:15]
    assert rows[2]["endpoint"] == own_karst.address
    table = ran([KARST, "status", "--data", own_karst.data])
    assert all(role in table for role in ROLES)


def test_memory_of_an_idle_constellation(own_karst):
    own_karst.start()
    assert sum(p["memory_bytes"] for p in own_karst.status()) < 40 << 20, own_karst.status()


def cpu_s(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_an_idle_constellation_uses_no_cpu(own_karst):
    """Nothing polls: heartbeats and a no-op record every half second are all that happens."""
    own_karst.start()
    time.sleep(1)
    before = sum(map(cpu_s, own_karst.pids().values()))
    time.sleep(5)
    assert sum(map(cpu_s, own_karst.pids().values())) - before < 0.15


def test_a_dead_process_is_started_again(own_karst):
    own_karst.start()
    for role in ROLES:
        pid = own_karst.pids()[role]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: own_karst.pids()[role] not in (pid, None), 10, f"a new {role}")
    wait_until(lambda: run(["kcat", "-b", own_karst.address, "-L"]).status == 0, 20, "an answer")
    assert [p["restarts"] for p in own_karst.status()] == [1] * 5


def test_a_program_that_is_away_for_a_moment(own_karst, monkeypatch):
    """As while a build or a copy replaces it: the process is started once it is there again."""
    programs = os.path.join(own_karst.folder, "bin")
    os.makedirs(programs)
    for name in ("karst", *(f"karst-{role}" for role in ROLES)):
        shutil.copy2(os.path.join(harness.BIN, name), programs)
    monkeypatch.setattr(harness, "KARST", os.path.join(programs, "karst"))
    own_karst.start()
    before, group = own_karst.pids(), os.path.join(programs, "karst-group")
    os.rename(group, group + ".away")
    os.kill(before["group"], signal.SIGKILL)
    wait_until(lambda: "group does not start: starting it again" in own_karst.log(), 20, "a start that fails")
    os.rename(group + ".away", group)
    wait_until(lambda: own_karst.pids()["group"] not in (None, before["group"]), 30, "the group service")
    after = own_karst.pids()
    assert {r: p for r, p in after.items() if r != "group"} == {r: p for r, p in before.items() if r != "group"}


def test_no_orphan_when_it_is_killed(own_karst):
    up = Foreground(own_karst)
    up.wait_for("Karst answers on")
    pids = own_karst.pids()
    up.process.kill()
    up.process.wait()
    wait_until(lambda: not any(alive(p) for p in pids.values()), 20, "the end of all processes")
    own_karst.start()  # and nothing is in the way of the next one


def test_no_orphan_when_it_is_killed_while_starting(own_karst):
    for delay in (0.0, 0.005, 0.01, 0.02, 0.05, 0.1):
        up = Foreground(own_karst)
        time.sleep(delay)
        up.process.kill()
        up.process.wait()
        marker = f"{own_karst.data}".encode()

        def left():
            found = []
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open(f"/proc/{pid}/cmdline", "rb") as f:
                        line = f.read()
                    config = line.split(b"\0")[2] if line.count(b"\0") > 3 and b"/karst-" in line.split(b"\0")[0] else b""
                    if config:
                        with open(config, "rb") as f:
                            if marker in f.read() and alive(pid):
                                found.append(pid)
                except (OSError, IndexError):
                    continue
            return found
        wait_until(lambda: not left(), 20, "the end of all processes")


def test_a_second_up_is_refused(own_karst):
    own_karst.start()
    outcome = run([KARST, "up", "--data", own_karst.data, "--listen", f"127.0.0.1:{harness.free_port()}"])
    assert outcome.status == 1 and "runs on" in outcome.err and "already" in outcome.err, str(outcome)
    assert len(own_karst.status()) == 5


def test_a_taken_port_is_refused(own_karst):
    with socket.socket() as s:
        s.bind(("127.0.0.1", own_karst.port))
        s.listen()
        outcome = run(own_karst.up_command("-d"))
    assert outcome.status == 1 and "Address already in use" in outcome.err and own_karst.address in outcome.err, str(outcome)


def test_a_directory_of_another_node_is_refused(own_karst):
    own_karst.start()
    own_karst.stop()
    path = os.path.join(own_karst.data, "meta.properties")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace("node.id=1", "node.id=5"))
    outcome = run(own_karst.up_command())
    assert outcome.status == 1 and "belongs to node 5" in outcome.err, str(outcome)


def test_a_folder_of_something_else_is_refused(own_karst):
    os.makedirs(own_karst.data)
    with open(os.path.join(own_karst.data, "thesis.tex"), "w", encoding="utf-8"):
        pass
    outcome = run(own_karst.up_command())
    assert outcome.status == 1 and "thesis.tex" in outcome.err and "no Kafka data directory" in outcome.err, str(outcome)
    assert os.listdir(own_karst.data) == ["thesis.tex"]


def test_a_directory_under_a_running_kafka_is_refused(kafka):
    outcome = run([KARST, "up", "--data", kafka.data, "--listen", f"127.0.0.1:{harness.free_port()}"])
    assert outcome.status == 1 and "running Apache Kafka" in outcome.err, str(outcome)


def test_kafka_is_kept_out_of_a_running_constellation(own_karst, own_folder):
    own_karst.start()
    path = os.path.join(own_folder, "intruder.properties")
    port = harness.free_port()
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"process.roles=broker,controller\nnode.id=1\nlisteners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1}\n"
                f"controller.listener.names=CONTROLLER\ncontroller.quorum.bootstrap.servers=127.0.0.1:{port + 1}\n"
                f"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs={own_karst.data}\n")
    outcome = run([harness.KAFKA, "server", path], timeout=60)
    # Its controller begins before its broker takes the lock, and may fall over quorum-state, which ours writes, before that.
    assert outcome.status not in (0, -1) and re.search(r"lock|quorum-state", outcome.out + outcome.err, re.IGNORECASE), str(outcome)
    assert run(["kcat", "-b", own_karst.address, "-L"]).status == 0


def test_config_warnings_and_errors(own_folder):
    karst = harness.Karst(own_folder, config={"num.partitions": "3", "ssl.protocol": "TLSv1.3", "lisners": "x", "my.own.key": "1",
                                              "offsets.topic.num.partitions": "4"})
    outcome = run(karst.up_command("-d"), timeout=60)
    try:
        assert outcome.status == 0, str(outcome)
        assert "ssl.protocol is not honoured yet" in outcome.err
        assert "unknown configuration key lisners; did you mean listeners?" in outcome.err
        assert "unknown configuration key my.own.key" in outcome.err
        assert "num.partitions" not in outcome.err
        assert karst.kcat("-t", "made", "-P", input="x\n").status == 0
        assert "with 3 partitions" in karst.kcat("-L", "-t", "made").out
    finally:
        karst.close()


def test_malformed_config_stops_the_start(own_folder):
    for key, value, expected in (("num.partitions", "many", "Invalid value many for configuration num.partitions: Not a number of type INT"),
                                 ("log.segment.bytes", "5", "Value must be at least 1048576"),
                                 ("listeners", "PLAINTEXT:9092", "NAME://HOST:PORT was expected"),
                                 ("process.roles", "broker", "process.roles=broker: broker,controller was expected"),
                                 ("listeners", "SSL://127.0.0.1:9092", "does not serve yet")):
        karst = harness.Karst(own_folder, config={key: value})
        command = [x for x in karst.up_command("-d") if key != "listeners" or x not in ("--listen", karst.address)]
        outcome = run(command)
        assert outcome.status == 78 and expected in outcome.err and key in outcome.err, str(outcome)
        assert not os.path.exists(os.path.join(karst.data, "meta.properties"))


def test_gives_up_loudly(own_karst, own_folder):
    """A service that dies again and again ends everything with status 1."""
    bin_folder = os.path.join(own_folder, "bin")
    shutil.copytree(harness.BIN, bin_folder, ignore=lambda _d, names: [n for n in names if not n.startswith("karst")])
    with open(os.path.join(bin_folder, "karst-txn"), "w", encoding="utf-8") as f:
        f.write("#!/bin/sh\necho out of order >&2\nexit 9\n")
    outcome = run([os.path.join(bin_folder, "karst"), *own_karst.up_command()[1:]], timeout=120)
    assert outcome.status == 1, str(outcome)
    assert "txn        out of order" in outcome.err and "giving up" in outcome.err
    assert run([KARST, "status", "--data", own_karst.data]).status == 3


def test_a_second_signal_stops_at_once(own_karst):
    up = Foreground(own_karst)
    up.wait_for("Karst answers on")
    pids = own_karst.pids()
    os.kill(pids["frontend"], signal.SIGSTOP)  # so that an orderly stop would hang
    up.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert up.process.poll() is None
    up.process.send_signal(signal.SIGINT)
    up.end(10)
    assert not any(alive(p) for p in pids.values())


def test_clean_stop_leaves_nothing_running_and_no_sockets(own_karst):
    own_karst.start()
    folder, pids = own_karst.run_dir(), own_karst.pids()
    own_karst.stop()
    assert not any(alive(p) for p in pids.values())
    assert not os.path.isdir(folder) or all(n.startswith("karst.log") for n in os.listdir(folder))
    assert os.path.exists(os.path.join(own_karst.data, ".kafka_cleanshutdown"))


@pytest.mark.parametrize("given", ["none", "a folder", "one that is not there"])
def test_sockets_are_in_memory_and_are_found(own_karst, own_folder, monkeypatch, given):
    """Where the environment names a folder they are in it; whoever asks needs no such environment."""
    named = {"none": None, "a folder": own_folder, "one that is not there": "/nowhere"}[given]
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if named:
        monkeypatch.setenv("XDG_RUNTIME_DIR", named)
    own_karst.start()
    memory = "/dev/shm" if os.getuid() < 1000 else "/tmp"
    assert own_karst.run_dir().startswith((own_folder if given == "a folder" else memory) + "/karst-")
    if given != "a folder":
        monkeypatch.setenv("XDG_RUNTIME_DIR", own_folder)
        assert own_karst.pids()
    own_karst.stop()


def test_wrong_usage():
    for arguments in (["dance"], ["up"], ["up", "--data"], ["up", "--data", "x", "--listen", "nonsense"], ["status", "--data", "x", "-d"],
                      ["up", "--data", "x", "more"]):
        outcome = run([KARST, *arguments], cwd="/tmp")
        assert outcome.status in (64, 78) and outcome.err.startswith("karst: "), str(outcome)
    assert "karst up --data DIR" in ran([KARST, "help"])
    assert ran([KARST, "version"]).startswith("karst ")
