"""systems.py - the systems that faults are done to: a constellation of Karst, and Apache Kafka of as many nodes. Both look the same to the
harness: where clients connect, who plays which part just now, whether all is whole again."""
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time

TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
sys.path[:0] = [os.path.join(TOP, "tests", folder) for folder in ("acceptance", "jepsen", "tools")]
import ask  # noqa: E402
import client  # noqa: E402
import disks  # noqa: E402
import harness  # noqa: E402
import kafka_cluster  # noqa: E402

PATIENCE_S = 3  # for one server's answer, before the next is asked
GROUP = "jepsen"
DEATHS, MINUTE_S = 7, 62  # of one process in a minute, at most: karst up gives one up at ten


def own_programs(folder):
    """Copies, so that a build meanwhile does not take a program away from karst up."""
    programs = os.path.join(folder, "bin")
    os.makedirs(programs)
    for name in ("karst", *(f"karst-{role}" for role in harness.ROLES), "karst-jepsen"):
        shutil.copy2(os.path.join(harness.BIN, name), programs)
    harness.KARST = os.path.join(programs, "karst")
    client.PROGRAM = os.path.join(programs, "karst-jepsen")


class Victim:
    """A process that faults are done to, and the host, or the node of Kafka, that it is on."""

    def __init__(self, name, pid, host=None):
        self.name, self.pid, self.host = name, pid, host

    def send(self, how):
        os.kill(self.pid, how)


def ask_at(host, port, api, version, body=None):
    with ask.Connection(host, port, PATIENCE_S) as c:
        return c.ask(api, version, body or {})


class System:
    """What both have in common; everything is asked of whoever answers."""
    targets = ()
    disks = {}  # of a victim's name: where small_disks was called

    def small_disks(self):
        """Before the start: each node's data on a disk of its own."""
        by_path = {path: disks.Disk(path) for path in self.folders().values()}
        self.disks = {name: by_path[path] for name, path in self.folders().items()}
        for disk in by_path.values():
            disk.mount()

    def disk_of(self, victim):
        return self.disks[victim.name]

    def remove_disks(self):
        """After the end, and after whoever wants to see the files."""
        for disk in set(self.disks.values()):
            disk.unmount()

    @classmethod
    def aims(cls, kind):
        """The targets that a fault of this kind can have."""
        return [t for t in cls.targets if kind in ("kill", "stop") or t in ("leader", "follower", "controller")]

    def revive(self, _victim):
        """Starts it again where it has ended and nobody else would."""

    deaths = ()  # (when, name of the victim)

    def may_die(self, victim):
        return sum(n == victim.name and t > time.monotonic() - MINUTE_S for t, n in self.deaths) < DEATHS

    def kill_now(self, victim):
        """The supervisor starts it again, at once."""
        self.deaths = [*self.deaths, (time.monotonic(), victim.name)]
        victim.send(signal.SIGKILL)

    def servers(self):
        """(host, port) of all that may be asked."""
        raise NotImplementedError

    def reach(self):
        """From where the servers can be reached."""
        return contextlib.nullcontext()

    def client_command(self):
        """What a client is run with."""
        return []

    def ask_any(self, api, version, body):
        servers, error = self.servers(), None
        random.shuffle(servers)
        for host, port in servers:
            try:
                with self.reach():
                    return ask_at(host, port, api, version, body)
            except (OSError, AssertionError) as e:
                error = e
        raise OSError(f"nobody answers: {error}")

    def create_topics(self, names, partitions):
        configs = [{"Name": "min.insync.replicas", "Value": "2"}]
        body = {"timeoutMs": 30000, "Topics": [{"Name": n, "NumPartitions": partitions, "ReplicationFactor": 3, "Configs": configs}
                                               for n in names]}
        answer = self.ask_any("CreateTopics", 5, body)
        assert all(t["ErrorCode"] in (0, 36) for t in answer["Topics"]), answer
        harness.wait_until(lambda: self.in_sync(names), 60, f"all replicas of {names} in sync")

    def partitions(self, names):
        """{(topic, partition): its row of Metadata}."""
        answer = self.ask_any("Metadata", 9, {"Topics": [{"Name": n} for n in names]})
        return {(t["Name"], p["PartitionIndex"]): p for t in answer["Topics"] for p in t["Partitions"]}

    def in_sync(self, names):
        with contextlib.suppress(OSError):
            rows = self.partitions([*names, "__consumer_offsets"])
            return all(p["LeaderId"] >= 0 and len(p["IsrNodes"]) == len(p["ReplicaNodes"]) for p in rows.values()) and \
                all(any(t == n for t, _ in rows) for n in names)
        return False

    def coordinator(self):
        """The broker that the group's coordinator is said to be."""
        return self.ask_any("FindCoordinator", 2, {"Key": GROUP, "KeyType": 0})["NodeId"]

    def controller_leader(self):
        answer = self.ask_any("DescribeQuorum", 2, harness.QUORUM)
        if answer["ErrorCode"] != 0:  # nobody leads, it says
            raise OSError(f"DescribeQuorum: error {answer['ErrorCode']}")
        return answer["Topics"][0]["Partitions"][0]["LeaderId"]

    def node_of(self, target, row):
        """The number of the node that plays this part now, of a partition with this row of Metadata."""
        return {"leader": lambda: row["LeaderId"],
                "follower": lambda: random.choice([n for n in row["ReplicaNodes"] if n != row["LeaderId"]]),
                "controller": self.controller_leader,
                "coordinator": self.coordinator}[target]()

    def victim(self, target, topic, partition):
        """Who plays this part now; None when nobody does."""
        with contextlib.suppress(OSError, StopIteration, KeyError):
            return self.pick(target, self.partitions([topic])[topic, partition])
        return None


class KarstSystem(System, harness.Karst):
    targets = ("leader", "follower", "controller", "frontend", "coordinator")
    every = (*targets, "observer", "txn")  # what more jepsen kills

    def __init__(self, folder, nodes=3, controllers=3, frontends=2, config=None):
        harness.Karst.__init__(self, folder, storage=nodes, controllers=controllers, frontends=frontends, config=config)

    def servers(self):
        return [("127.0.0.1", self.port + 100 * f + n) for f in range(self.nodes["frontends"]) for n in range(self.nodes["storage"] + 1)]

    @property
    def bootstrap(self):
        return ",".join(f"127.0.0.1:{self.port + 100 * f}" for f in range(self.nodes["frontends"]))

    def of(self, role, number=None):
        rows = [p for p in self.status() if p["role"] == role and p["pid"] and (number is None or p["id"] == number)]
        return random.choice(rows) if rows else None

    def pick(self, target, row):
        p = {"leader": lambda: self.of("storage", self.node_of(target, row)),
             "follower": lambda: self.of("storage", self.node_of(target, row)),
             "controller": lambda: self.of("controller", self.node_of(target, row)),
             "observer": lambda: self.of("controller"),
             "frontend": lambda: self.of("frontend"),
             "coordinator": lambda: self.of("group"),
             "txn": lambda: self.of("txn")}[target]()
        return p and Victim(f"{p['role']}-{p['id']}", p["pid"])

    def folders(self):
        kinds = (("storage", "storage", self.nodes["storage"]), ("controller", "controllers", self.nodes["controllers"]))
        return {f"{role}-{n}": self.data if n == 1 else f"{self.data}.{kind}/{n}" for role, kind, count in kinds for n in range(1, count + 1)}

    def is_back(self, topics):
        """All processes run, every partition is whole, the voters agree on a leader."""
        with contextlib.suppress(OSError, AssertionError, StopIteration, KeyError, json.JSONDecodeError):
            return all(p["pid"] and p["state"] == "running" for p in self.status()) and self.is_whole() and self.in_sync(topics)
        return False

    def is_whole(self):
        roles = [q["role"] for q in self.whole_status()["quorum"]]
        brokers = self.ask_any("DescribeCluster", 0, {})["Brokers"]
        return len(brokers) == self.nodes["storage"] and roles.count("leader") == 1 and \
            roles.count("follower") == self.nodes["controllers"] - 1

    def keep_log(self, folder):
        with open(os.path.join(folder, "karst.log"), "w", encoding="utf-8") as out:
            out.write(self.whole_log())

    def complaints(self):
        return harness.defects(self.whole_log())


class KafkaNodes:
    """Each node is broker and controller. The coordinator is the broker that leads the group's partition; there are no front ends."""
    targets = ("leader", "follower", "controller", "coordinator")
    every = targets

    @property
    def bootstrap(self):
        return self.address

    def start(self, *arguments, **more):
        kafka_cluster.KafkaCluster.start(self, *arguments, **more)
        return self

    def pick(self, target, row):
        node = self.node_of(target, row)
        return Victim(f"node-{node}", self.processes[node].pid, node) if node in self.ids and self.running(node) else None

    def may_die(self, _victim):
        return True

    def kill_now(self, victim):
        """It is started again as soon as it has ended, as karst up does."""
        self.kill(victim.host)
        self.start(victim.host, wait=False)

    def revive(self, victim):
        """A node whose only directory is full has ended itself."""
        if not self.running(victim.host):
            self.start(victim.host, wait=False)

    def is_back(self, topics):
        with contextlib.suppress(OSError, AssertionError, StopIteration):
            return all(self.running(n) for n in self.ids) and self.is_whole() and self.in_sync(topics)
        return False

    def keep_log(self, folder):
        with open(os.path.join(folder, "kafka.log"), "w", encoding="utf-8") as out:
            out.write(self.log(lines=2000))

    def complaints(self):
        return []


class KafkaSystem(KafkaNodes, System, kafka_cluster.KafkaCluster):
    def __init__(self, folder, nodes=3, config=None):
        kafka_cluster.KafkaCluster.__init__(self, folder, nodes, config=config)

    def servers(self):
        return [("127.0.0.1", self.broker_port(n)) for n in self.ids]

    def folders(self):
        return {f"node-{n}": self.data_of(n)[0] for n in self.ids}


def new(peer, folder, storage=3, controllers=3, frontends=2, config=None):
    if peer == "kafka":
        return KafkaSystem(folder, storage, config)
    return KarstSystem(folder, storage, controllers, frontends, config)
