"""systems.py - the servers that are measured, each started on an empty folder of its own, and what /proc says about their processes."""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "acceptance"))
import harness  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
CPUCLOCK_SCHED = 2  # of clock_getcpuclockid(3)
# What kafka-server-start.sh and kafka-run-class.sh of the distribution set.
KAFKA_HEAP = "-Xms1g -Xmx1g"
KAFKA_FLAGS = "-XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent"


def tree(pid):
    """The process and all below it."""
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="utf-8") as f:
                for child in map(int, f.read().split()):
                    found += tree(child)
    except FileNotFoundError:
        pass  # it has ended meanwhile
    return found


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cpu_s(pids):
    """User and system time of all threads, in seconds: of the processes' own clocks, as /proc/PID/stat counts in 10 ms."""
    spent = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):  # it is gone
            spent += time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)
    return spent


def switches(pids):
    """Context switches, voluntary and not, of the threads that live."""
    count = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task") if os.path.isdir(f"/proc/{pid}/task") else []:
            count += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", read(f"/proc/{pid}/task/{task}/status"))))
    return count


def pss_mib(pids):
    """The sum of proportional set sizes."""
    return sum(int(kib) for pid in pids for kib in re.findall(r"^Pss:\s+(\d+)", read(f"/proc/{pid}/smaps_rollup"), re.M)) / 1024


def machine_cpu():
    """(busy, all) seconds of all cores so far."""
    fields = list(map(int, read("/proc/stat").splitlines()[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / TICK, sum(fields) / TICK


# The files of deleted topics go at once, and not a minute later while something else is measured.
SOON = {"log.segment.delete.delay.ms": "500"}


class System:
    """A server of one node on 127.0.0.1. start() returns at once; wait() when it answers."""
    name = "?"
    replicas = 1
    warm_seconds = 8.0  # of each warm-up load: enough for a JVM to have compiled the paths that are measured

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="karst-bench-", dir=os.environ.get("KARST_BENCH_DIR"))
        self.port = harness.free_port()
        self.process = None
        self.started = 0.0

    address = property(lambda self: f"127.0.0.1:{self.port}")

    def command(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def prepare(self):
        """What must be done once before the first start."""

    def start(self):
        self.prepare()
        return self.run()

    def run(self):
        """Starts it on what its folder holds."""
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.started = time.monotonic()
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment())
        return self

    def kill(self):
        """kill -9 of all its processes at once."""
        pids = self.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        harness.wait_until(lambda: not any(map(harness.alive, pids)), 60, "the end of all processes")

    def alive(self):
        return self.process.poll() is None

    def pids(self):
        return tree(self.process.pid)

    def ask(self, api, version, body, timeout_s=60):
        with harness.ask.Connection("127.0.0.1", self.port, timeout_s) as c:
            return c.ask(api, version, body)

    def wait(self, timeout_s=120):
        """Until it names itself in Metadata, and so can lead partitions."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if self.ask("Metadata", 9, {"Topics": []})["Brokers"]:
                    return self
            except OSError:
                pass
            if not self.alive() or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not answer: {self.log()}")
            time.sleep(0.02)

    def log(self):
        return "".join(read(os.path.join(self.folder, "log")).splitlines(True)[-15:])

    def create(self, topic, partitions, configs=None):
        """Makes it and waits until every partition has its leader."""
        answer = self.ask("CreateTopics", 5, {"Topics": [{"Name": topic, "NumPartitions": partitions, "ReplicationFactor": 1, "Assignments": [],
                                                          "Configs": [{"Name": k, "Value": v} for k, v in (configs or {}).items()]}],
                                          "timeoutMs": 60000, "validateOnly": False})
        error = answer["Topics"][0]["ErrorCode"]
        if error != 0:
            raise RuntimeError(f"{self.name}: CreateTopics {topic}: error {error}")
        deadline = time.monotonic() + 60
        while True:
            found = self.ask("Metadata", 9, {"Topics": [{"Name": topic}], "AllowAutoTopicCreation": False})["Topics"][0]
            if found["ErrorCode"] == 0 and len(found["Partitions"]) == partitions and all(p["ErrorCode"] == 0 for p in found["Partitions"]) \
                    and self.leads(topic, partitions):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: no leaders for {topic} within a minute")
            time.sleep(0.02)

    def leads(self, topic, partitions):
        """The broker knows it, too: Kafka's metadata name a leader a moment before it accepts records."""
        asked = [{"PartitionIndex": i, "Timestamp": -1} for i in range(partitions)]
        answer = self.ask("ListOffsets", 2, {"ReplicaId": -1, "IsolationLevel": 0, "Topics": [{"Name": topic, "Partitions": asked}]})
        return all(p["ErrorCode"] == 0 for p in answer["Topics"][0]["Partitions"])

    def records(self, topic, partitions):
        """How many it has, by its offsets."""
        def ends(timestamp):
            asked = [{"PartitionIndex": i, "Timestamp": timestamp} for i in range(partitions)]
            answer = self.ask("ListOffsets", 2, {"ReplicaId": -1, "IsolationLevel": 0, "Topics": [{"Name": topic, "Partitions": asked}]})
            return sum(p["Offset"] for p in answer["Topics"][0]["Partitions"])
        return ends(-1) - ends(-2)

    def delete(self, topic):
        self.ask("DeleteTopics", 4, {"TopicNames": [topic], "TimeoutMs": 60000})

    def forget_cache(self, sync=True):
        """Its files leave the page cache, so that readers meet the disk. Without sync what is not written yet stays in it."""
        if sync:
            os.sync()
        for folder, _, names in os.walk(self.folder):
            for name in names:
                try:
                    fd = os.open(os.path.join(folder, name), os.O_RDONLY)
                except OSError:
                    continue
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)

    def end(self):
        self.process.terminate()
        self.process.wait(120)

    def stop(self):
        try:
            if self.process is not None and self.alive():
                self.end()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


class Karst(System):
    """The programs of a folder, with settings of server.properties beside the defaults."""
    warm_seconds = 2.0  # nothing is compiled: only memory and files are touched for the first time

    def __init__(self, name="Karst", programs=harness.BIN, settings=None):
        super().__init__()
        self.name, self.programs, self.settings = name, programs, {**SOON, **(settings or {})}

    def prepare(self):
        self.config = os.path.join(self.folder, "server.properties")
        with open(self.config, "w", encoding="utf-8") as f:
            f.writelines(f"{key}={value}\n" for key, value in self.settings.items())

    def command(self):
        return [os.path.join(self.programs, "karst"), "up", "--data", os.path.join(self.folder, "data"), "--listen", self.address,
                "--config", self.config]

    @staticmethod
    def variant(text, make=None):
        """NAME[=KEY=VALUE,...] to a function that makes it; the key `bin` is the folder of other programs."""
        name, _, rest = text.partition("=")
        settings = dict(pair.split("=", 1) for pair in rest.split(",") if "=" in pair)
        programs = os.path.abspath(settings.pop("bin", harness.BIN))
        if not name or not os.access(os.path.join(programs, "karst"), os.X_OK):
            raise SystemExit(f"bench: --variant {text}: no name, or no programs in {programs}")
        return lambda: (make or Karst)(name, programs, settings)


class Kafka(System):
    name = "Kafka"

    def prepare(self):
        config = os.path.join(self.folder, "server.properties")
        controller = f"127.0.0.1:{self.port + 1}"
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"process.roles=broker,controller\nnode.id=1\nlisteners=PLAINTEXT://{self.address},CONTROLLER://{controller}\n"
                    "controller.listener.names=CONTROLLER\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n"
                    f"controller.quorum.bootstrap.servers={controller}\nlog.dirs={self.folder}/data\n"
                    "offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n"
                    "transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n"
                    + "".join(f"{key}={value}\n" for key, value in SOON.items()))
        harness.ran([harness.KAFKA, "storage", "format", "--standalone", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", config], timeout=300)

    def environment(self):
        return {**os.environ, "KAFKA_HEAP_OPTS": KAFKA_HEAP, "KAFKA_OPTS": KAFKA_FLAGS}

    def command(self):
        return [harness.KAFKA, "server", os.path.join(self.folder, "server.properties")]


class Peer(System):
    """Any other server: CMD start DIR PORT returns when it is started; CMD pids DIR prints its processes; CMD stop DIR ends it."""

    def __init__(self, command):
        super().__init__()
        self.peer = command.split()
        self.name = os.path.basename(self.peer[0])

    def start(self):
        self.started = time.monotonic()
        harness.ran([*self.peer, "start", self.folder, str(self.port)], timeout=300)
        return self

    def roots(self):
        return list(map(int, harness.run([*self.peer, "pids", self.folder]).out.split()))

    def alive(self):
        return all(harness.alive(pid) for pid in self.roots())

    def pids(self):
        return sorted({pid for root in self.roots() for pid in tree(root)})

    def stop(self):
        harness.run([*self.peer, "stop", self.folder], timeout=120)
        shutil.rmtree(self.folder, ignore_errors=True)
