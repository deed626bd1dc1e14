"""spread_systems.py - the same systems with each node on a host of its own (a network namespace), so that hosts can be cut off; clients and
the harness are on one more."""
import contextlib
import os
import random

import harness
import kafka_cluster
import namespaces
import spread
import systems

NODES, CLIENTS = 3, 4


class Spread(systems.System):
    """What both have in common: hosts 1 to 3 with a node each, clients on host 4."""

    def make_hosts(self, folder):
        self.hosts = namespaces.Hosts(folder, NODES + 1)

    def reach(self):
        return self.hosts.inside(CLIENTS)

    def client_command(self):
        return self.hosts.command(CLIENTS, [])

    def begin_cut(self, kind, victim):
        if kind == "cut":
            self.hosts.cut(victim.host)
        else:
            self.hosts.cut_one_way(victim.host)

    def end_cut(self, victim):
        self.hosts.heal(victim.host)


CUTS = ("cut", "oneway")
ROLE_OF = {"controller": "controller", "frontend": "frontend", "coordinator": "group"}


class KarstSpread(Spread, spread.Spread):
    name = "karst"
    targets = every = systems.KarstSystem.targets

    def __init__(self, folder, config=None):
        self.make_hosts(folder)
        spread.Spread.__init__(self, self.hosts, NODES, config=config)

    def servers(self):
        return [(self.hosts.address(n), spread.CLIENTS) for n in self.frontends]

    def pick(self, target, row):
        host = random.choice(self.frontends) if target == "frontend" else self.node_of(target, row)
        role = ROLE_OF.get(target, "storage")
        return systems.Victim(f"{role}-{host}", self.pid(host, role), host)

    def is_back(self, topics):
        with contextlib.suppress(OSError, AssertionError, StopIteration, KeyError, ValueError):
            return all(p["pid"] and p["state"] == "running" for n in self.nodes for p in self.status(n)["processes"]) and \
                self.is_whole() and self.in_sync(topics)
        return False

    def keep_log(self, folder):
        for n in self.nodes:
            with open(os.path.join(folder, f"karst-{n}.log"), "w", encoding="utf-8") as out:
                out.write(self.whole_log(n))

    def complaints(self):
        return [line for n in self.nodes for line in harness.defects(self.whole_log(n))]

    def close(self):
        try:
            self.stop()
        finally:
            self.hosts.close()


class KafkaSpread(systems.KafkaNodes, Spread, kafka_cluster.KafkaCluster):
    def __init__(self, folder, config=None):
        self.make_hosts(folder)
        kafka_cluster.KafkaCluster.__init__(self, folder, NODES, port=9092, config=config)

    def host(self, node):
        return self.hosts.address(node)

    def command(self, node, words):
        return self.hosts.command(node, words)

    def folder_of(self, node):
        return os.path.join(self.folder, f"node-{node}")

    def ask(self, api, version, body=None, port=None, node=None):
        node = node or next(n for n in self.ids if self.running(n))
        with self.reach():
            return systems.ask_at(self.host(node), port or self.broker_port(node), api, version, body)

    def servers(self):
        return [(self.host(n), self.broker_port(n)) for n in self.ids]

    def close(self):
        try:
            kafka_cluster.KafkaCluster.close(self)
        finally:
            self.hosts.close()


def missing():
    return namespaces.missing()


def new(peer, folder, config=None):
    return KafkaSpread(folder, config) if peer == "kafka" else KarstSpread(folder, config)
