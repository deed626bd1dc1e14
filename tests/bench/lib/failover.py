"""failover.py - shapes of workloads about three nodes with many partitions: how long making them takes, how long a change takes until all
nodes show it, and how long until a node that stands still leads nothing any more."""
import contextlib
import statistics
import time

import clusters
import systems
from systems import harness

POLL_S = 0.002
CHANGES = 100


def make(run, topics):
    """The names of topics that have run.many partitions together, each on all nodes."""
    return [run.topic(run.many // topics) for _ in range(topics)]


def propagation(system):
    """Milliseconds from asking for a topic until each address where clients ask has shown it, of a hundred topics."""
    took = []
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(harness.ask.Connection("127.0.0.1", port, 60)) for port in system.others(None)]
        for i in range(CHANGES):
            name, started = f"change-{time.monotonic_ns()}-{i}", time.monotonic()
            system.ask("CreateTopics", 5, {"Topics": [{"Name": name, "NumPartitions": 1, "ReplicationFactor": 3, "Assignments": [], "Configs": []}],
                                           "timeoutMs": 60000, "validateOnly": False})
            for node in nodes:
                while node.ask("Metadata", 9, {"Topics": [{"Name": name}], "AllowAutoTopicCreation": False})["Topics"][0]["ErrorCode"] != 0:
                    time.sleep(POLL_S)
            took.append((time.monotonic() - started) * 1e3)
            system.delete(name)
    return took


def leaderless(connection, names, node):
    """How many partitions clients are still sent to that node for, or to nobody."""
    answer = connection.ask("Metadata", 9, {"Topics": [{"Name": t} for t in names], "AllowAutoTopicCreation": False})
    return sum(p["LeaderId"] in (node, -1) for t in answer["Topics"] for p in t["Partitions"])


def failover(topics=10):
    """Makes the partitions, changes some topics, freezes a node that does not lead the quorum, and waits for it to come back."""
    def shape(run):
        if run.counting:
            return {}
        system, started = run.system, time.monotonic()
        with_cpu = systems.cpu_s(system.pids())
        names = make(run, topics)
        figures = {"create_s": time.monotonic() - started, "cpu_create_s": systems.cpu_s(system.pids()) - with_cpu}
        took = sorted(propagation(system))
        figures["change_p50_ms"], figures["change_p99_ms"] = statistics.median(took), took[int(0.99 * len(took)) - 1]
        node = next(n for n in clusters.NODES if n != system.quorum_leader())
        with_cpu = systems.cpu_s(system.pids())
        with system.frozen(node) as since, harness.ask.Connection("127.0.0.1", system.others(node)[0], 60) as asked:
            # One topic first: to read an answer about all of them takes this program longer than what is measured here.
            while leaderless(asked, names[-1:], node) > 0 or leaderless(asked, names, node) > 0:
                if time.monotonic() - since > 120:
                    raise RuntimeError(f"{system.name}: partitions without a leader two minutes after a node stood still")
                time.sleep(POLL_S)
            figures["failover_s"] = asked.answered - since
        harness.wait_until(lambda: all(system.in_sync(n, run.many // topics) for n in names), 300, "all replicas in sync again")
        figures["healed_s"] = time.monotonic() - since - figures["failover_s"]
        figures["cpu_failover_s"] = systems.cpu_s(system.pids()) - with_cpu
        figures["memory_mib"] = systems.pss_mib(system.pids())
        return figures
    return shape


def start(topics=10):
    """A clean stop with the partitions on all nodes, and the start after it: until all answer and all replicas are in sync."""
    def shape(run):
        if run.counting:
            return {}
        system, names = run.system, make(run, topics)
        system.end()
        system.run()
        system.wait()
        harness.wait_until(lambda: all(system.in_sync(n, run.many // topics) for n in names), 600, "all replicas in sync")
        pids = system.pids()
        return {"ready_s": time.monotonic() - system.started, "start_cpu_s": systems.cpu_s(pids), "start_memory_mib": systems.pss_mib(pids)}
    return shape
