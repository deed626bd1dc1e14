"""harness.py - a Karst constellation, a real Kafka, and Kafka's tools, for tests.

Everything listens on 127.0.0.1, on ports that were free a moment ago; every folder is the test's own; so two runs may go on at once.
Servers are ended by what started them, and die with the test run (karst up -d is ended in `close`).
"""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BIN = os.environ.get("KARST_BIN", os.path.join(ROOT, "build", "release", "bin"))
KARST = os.path.join(BIN, "karst")
KAFKA = os.path.join(ROOT, "tests", "tools", "kafka")
# true or false: what tests that do not choose themselves run with; unset: the default.
SHARED = os.environ.get("KARST_BUS_SHARED")
ROLES = ("controller", "storage", "frontend", "group", "txn")

sys.path.insert(0, os.path.join(ROOT, "tests", "tools"))
import ask  # noqa: E402


def free_port(offsets=(0, 1)):
    """Of a range below the ephemeral one; with a free neighbour, which Kafka's controller takes, or with all of offsets free."""
    low = int(os.environ.get("KARST_TEST_PORTS", "19500"))
    while True:
        port = random.randrange(low, low + 480 - max(offsets), 2)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for offset in offsets:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            return port


def defects(log):
    """The lines that no log of Karst's may ever have."""
    return [line for line in log.splitlines() if any(word in line for word in ("BUG at", "Sanitizer", "runtime error"))]


class Outcome:
    def __init__(self, command, status, out, err):
        self.command, self.status, self.out, self.err = command, status, out, err

    def __str__(self):
        return f"$ {' '.join(self.command)}\nstatus {self.status}\n--- stdout\n{self.out[-6000:]}\n--- stderr\n{self.err[-6000:]}"


def run(command, input=None, timeout=60, env=None, cwd=None):
    process = subprocess.Popen(command, stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, **(env or {})}, cwd=cwd)
    try:
        out, err = process.communicate(input, timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        err += f"\n(ended: more than {timeout} s)"
        return Outcome(command, -1, out, err)
    return Outcome(command, process.returncode, out, err)


def ran(command, **options):
    """The output of a command that must succeed."""
    outcome = run(command, **options)
    assert outcome.status == 0, str(outcome)
    return outcome.out


def wait_until(condition, timeout=20, what="the condition"):
    """Polls until condition() is true; its last value. Fails loudly after timeout seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come within {timeout} s"
        time.sleep(0.02)


def taken(cluster, body):
    """The row of a Produce to one partition, which has to succeed. A Kafka's broker names a topic before it takes records for it: it says
    UNKNOWN_TOPIC_OR_PARTITION or NOT_LEADER_OR_FOLLOWER, and nothing is written."""
    def row():
        found = cluster.ask("Produce", 9, body)["Responses"][0]["PartitionResponses"][0]
        assert found["ErrorCode"] == 0 or (cluster.name == "kafka" and found["ErrorCode"] in (3, 6)), (cluster.name, body["TopicData"][0]["Name"], found)
        return found if found["ErrorCode"] == 0 else None
    return wait_until(row, 30, "a Kafka that takes the record")


def watermarks(consumer, topic, partition=0):
    """Low and high watermark; None while a new leader does not know its own yet, which Kafka's leaders say, too."""
    import confluent_kafka
    try:
        return consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, partition), 20)
    except confluent_kafka.KafkaException as e:
        if e.args[0].code() != confluent_kafka.KafkaError.OFFSET_NOT_AVAILABLE:
            raise
        return None


def alive(pid):
    """Also where only its main thread has ended yet: the others hold its files and locks."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            ended = f.read().rsplit(")", 1)[1].split()[0] in "ZX"
        return not ended or len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


# What DescribeQuorum is asked for.
QUORUM = {"Topics": [{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}]}


class Cluster:
    """What a test needs to know of either system."""
    name = "?"

    def __init__(self, folder, port=None):
        self.folder, self.port = folder, port or free_port()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def controller_address(self):
        return f"127.0.0.1:{self.controller_port(1)}"

    def controller_port(self, _node):
        return self.port + 1

    def tool(self, name, *arguments, input=None, timeout=90, controllers=False):
        """Kafka's own tool against this cluster; controllers: against its controller listener."""
        bootstrap = ["--bootstrap-controller", self.controller_address] if controllers else ["--bootstrap-server", self.address]
        words = [*arguments, *bootstrap] if name == "cluster" else [*bootstrap, *arguments]  # its subcommands take it
        return run([KAFKA, name, *words], input=input, timeout=timeout)

    def kcat(self, *arguments, input=None, timeout=60):
        return run(["kcat", "-b", self.address, *arguments], input=input, timeout=timeout)

    def ask(self, api, version, body=None, port=None):
        with ask.Connection("127.0.0.1", port or self.port) as c:
            return c.ask(api, version, body)


CONTROLLERS = 50  # of a constellation's port: controller N of several is N above that
CONTROLLER_PORTS = range(CONTROLLERS + 1, CONTROLLERS + 4)


class Karst(Cluster):
    """Karst(folder).start(): one of everything. Karst(folder, storage=3, controllers=3, frontends=2).start(): a constellation, when it
    returns with all storage nodes known to clients and all controllers voters. Front end F is at port + 100 (F - 1), and there broker N
    at N above that."""
    name = "karst"

    def __init__(self, folder, port=None, config=None, controllers=None, storage=None, frontends=None):
        ports = [100 * f + n for f in range(frontends or 1) for n in range((storage or 1) + 1)]
        super().__init__(folder, port or free_port([*ports, *CONTROLLER_PORTS]))
        self.data = os.path.join(folder, "data")
        self.nodes = {"controllers": controllers, "storage": storage, "frontends": frontends}
        self.config = self.last_run_dir = None
        if SHARED is not None:
            config = {"karst.bus.shared": SHARED, **(config or {})}
        if config:
            os.makedirs(folder, exist_ok=True)
            self.config = os.path.join(folder, "server.properties")
            with open(self.config, "w", encoding="utf-8") as f:
                f.write("".join(f"{k}={v}\n" for k, v in config.items()))

    def controller_port(self, node):
        return self.port + (CONTROLLERS + node if any(n and n > 1 for n in self.nodes.values()) else 1)

    def up_command(self, *more):
        counts = [x for name, n in self.nodes.items() if n for x in (f"--{name}", str(n))]
        return [KARST, "up", "--data", self.data, "--listen", self.address, *(["--config", self.config] if self.config else []), *counts, *more]

    def start(self):
        outcome = run(self.up_command("-d"), timeout=90)
        assert outcome.status == 0, f"{outcome}\n{self.log()}"
        self.last_run_dir = self.run_dir()
        if any(self.nodes.values()):
            wait_until(self.is_whole, 40, "all brokers and voters")
        return self

    def is_whole(self):
        """All storage nodes are known to clients, and all controllers lead or follow."""
        brokers = self.ask("DescribeCluster", 0, {})["Brokers"]
        roles = [q["role"] for q in self.whole_status()["quorum"]]
        return len(brokers) == len(self.ids("storage")) and roles.count("leader") == 1 and \
            roles.count("follower") == len(self.ids("controller")) - 1

    def whole_status(self):
        return json.loads(ran([KARST, "status", "--data", self.data, "--json"]))

    def status(self):
        return self.whole_status()["processes"]

    def pids(self):
        """Of the last of each role: for a constellation with one of everything."""
        return {p["role"]: p["pid"] for p in self.status()}

    def ids(self, role):
        return [p["id"] for p in self.status() if p["role"] == role]

    def process(self, role, number):
        """What karst status says of one process of several of its role."""
        return next(p for p in self.status() if p["role"] == role and p["id"] == number)

    def kill(self, role, number, how=signal.SIGKILL):
        os.kill(self.process(role, number)["pid"], how)

    def run_dir(self):
        endpoint = next(p["endpoint"] for p in self.status() if p["role"] == "controller")
        return os.path.dirname(endpoint.removeprefix("ipc://"))

    def whole_log(self):
        """The last 16 to 32 MiB of its last life; nothing when it never ran."""
        text = ""
        for name in ("karst.log.1", "karst.log"):
            with contextlib.suppress(OSError), open(os.path.join(self.last_run_dir or "", name), encoding="utf-8", errors="replace") as f:
                text += f.read()
        return text

    def log(self):
        """The last lines of the constellation's log, for a failed test's message."""
        for start in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.getuid()}", "/dev/shm", "/tmp"):
            top = os.path.join(start, f"karst-{os.getuid()}")
            for name in os.listdir(top) if os.path.isdir(top) else []:
                try:
                    with open(os.path.join(top, name, "server.properties"), encoding="utf-8") as f:
                        if not re.search(rf"^log\.dirs={re.escape(self.data)}(,|$)", f.read(), re.M):
                            continue
                    with open(os.path.join(top, name, "karst.log"), encoding="utf-8", errors="replace") as f:
                        return "".join(f.readlines()[-60:])
                except OSError:
                    continue
        return "(no log)"

    def stop(self):
        outcome = run([KARST, "down", "--data", self.data], timeout=90)
        assert outcome.status in (0, 3), str(outcome)

    def close_sound(self):
        """Ends it; its log may show no defect."""
        self.stop()
        bugs = defects(self.whole_log())
        self.close()
        assert not bugs, bugs

    def close(self):
        """Ends it and leaves nothing behind but what the test's folder holds."""
        self.stop()
        if self.last_run_dir:
            shutil.rmtree(self.last_run_dir, ignore_errors=True)


class Kafka(Cluster):
    """The real one, of one node with id 1, as broker and controller."""
    name = "kafka"

    def __init__(self, folder, port=None, data=None):
        super().__init__(folder, port)
        self.data = data or os.path.join(folder, "data")

    def start(self, *properties):
        settings = [*properties]
        if self.data != os.path.join(self.folder, "data"):
            if not any(p.startswith("log.dirs=") for p in properties):
                settings.append(f"log.dirs={self.data}")
            # The tool formats a folder that has no meta.properties; here the data lies elsewhere and is formatted already.
            os.makedirs(os.path.join(self.folder, "data"), exist_ok=True)
            shutil.copy(os.path.join(self.data, "meta.properties"), os.path.join(self.folder, "data", "meta.properties"))
        outcome = run([KAFKA, "start", self.folder, str(self.port), *settings], timeout=120)
        assert outcome.status == 0, f"{outcome}\n{self.log()}"
        return self

    def status(self):
        return []

    def log(self):
        try:
            with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as f:
                return "".join(f.readlines()[-60:])
        except OSError:
            return "(no log)"

    def stop(self):
        ran([KAFKA, "stop", self.folder], timeout=90)

    def close(self):
        run([KAFKA, "stop", self.folder], timeout=90)


def new_folder():
    """Under /tmp and short, removed by the fixture."""
    return tempfile.mkdtemp(prefix="karst-test-")


def new_cluster(folder, **options):
    """Karst; or, with KARST_TEST_SELF=kafka, a second Kafka: the tests that compare are then proved against Kafka itself."""
    return Kafka(folder) if os.environ.get("KARST_TEST_SELF") == "kafka" else Karst(folder, **options)


def side_by_side(*functions):
    """Calls them on a thread each; their results in order, or the first exception."""
    results = [None] * len(functions)

    def call(i):
        try:
            results[i] = (True, functions[i]())
        except BaseException as error:
            results[i] = (False, error)
    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(functions))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for good, value in results:
        if not good:
            raise value
    return [value for _, value in results]


# ---------------------------------------------------------------------------------------------------------------- comparing

IDS = [
    (r"\b[A-Za-z0-9_-]{22}\b(?=\s|$|,|\")", "<id>"),                              # topic and cluster ids
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uuid>"),
    (r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\]", "[<time>]"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[:.,]\d{3}", "<time>"),
    (r"CreateTime:\d+", "CreateTime:<time>"),
    (r'"timestamp":\d+', '"timestamp":<time>'),
]


def normal(text, cluster, more=()):
    """Without what may differ between two clusters that are the same: ports, folders, ids, times."""
    text = text.replace(cluster.data, "<data>").replace(cluster.folder, "<folder>")
    text = text.replace(str(cluster.port), "<port>").replace(str(cluster.port + 1), "<port+1>")
    for pattern, by in [*IDS, *more]:
        text = re.sub(pattern, by, text)
    return "\n".join(re.sub(r"[ \t]+", " ", line).strip() for line in text.splitlines())


class Pair:
    """The same done to Karst and to a real Kafka, side by side, and compared."""

    def __init__(self, ours, theirs):
        self.ours, self.theirs = ours, theirs

    def both(self, function):
        return side_by_side(lambda: function(self.ours), lambda: function(self.theirs))

    def tool(self, name, *arguments, input=None, timeout=90, more=(), sort=False, check_err=True, only=None, status=None,
             controllers=False):
        """Compares status, stdout and stderr; `only` keeps matching lines of stdout, `sort` ignores their order, `more` are further
        (pattern, text) to normalise. Returns our stdout, as it was."""
        a, b = self.both(lambda c: c.tool(name, *[x.replace("{folder}", c.folder) for x in arguments], input=input, timeout=timeout,
                                          controllers=controllers))

        def shape(text, cluster):
            lines = normal(text, cluster, more).splitlines()
            if only:
                lines = [line for line in lines if re.search(only, line)]
            return "\n".join(sorted(lines) if sort else lines)
        ours, theirs = shape(a.out, self.ours), shape(b.out, self.theirs)
        if status is not None:
            assert b.status == status, f"Kafka itself:\n{b}"
        problem = None
        if a.status != b.status:
            problem = f"status {a.status}, Kafka has {b.status}"
        elif ours != theirs:
            problem = "stdout differs"
        elif check_err and shape_err(a.err, self.ours, more) != shape_err(b.err, self.theirs, more):
            problem = "stderr differs"
        assert problem is None, f"{problem}\n=== {self.ours.name}\n{a}\n=== {self.theirs.name}\n{b}"
        return a.out


def shape_err(text, cluster, more):
    """Of stack traces only the first line of each exception; warnings of the tools' logs without their numbers."""
    lines = [line for line in normal(text, cluster, more).splitlines() if not line.startswith(("at ", "... "))]
    return "\n".join(lines)
