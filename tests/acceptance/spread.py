"""spread.py - one Karst constellation over several hosts (namespaces.py): a controller and a storage node on each, front ends on
those that have them, CURVE between them. Each host has its own `karst up`, as on machines of their own. What the hosts have more is
for clients."""
import glob
import json
import os

import harness

CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"
CLIENTS, BUS = 9092, 9300


class Spread:
    """Files, then `start`. Node N is on host N; clients may connect to all of `bootstrap`."""
    name = "karst"

    def __init__(self, hosts, nodes=3, frontends=(1, 2), config=None):
        self.hosts, self.nodes, self.frontends, self.config = hosts, range(1, nodes + 1), frontends, config or {}
        self.keys = {n: self.make_key(n) for n in self.nodes}
        for n in self.nodes:
            self.write_hosts(n, self.keys)
            self.write_config(n)

    # ---- files: on each host in `here`

    def path(self, n, name):
        return os.path.join(self.hosts.outside(n), name)

    def make_key(self, n, name="key"):
        return harness.ran([harness.KARST, "key", self.path(n, name)]).strip()

    def write_hosts(self, n, keys):
        """The list of host n: keys by number; each carries the node of that number."""
        with open(self.path(n, "hosts.new"), "w", encoding="utf-8") as f:
            f.write("".join(f"{self.hosts.address(k)} {key} {k}\n" for k, key in keys.items()))
        os.rename(self.path(n, "hosts.new"), self.path(n, "hosts"))

    def settings(self, n):
        at = self.hosts.address(n)
        return {"node.id": n, "listeners": f"PLAINTEXT://{at}:{CLIENTS},CONTROLLER://{at}:{CLIENTS - 1}",
                "karst.bus.listen": f"{at}:{BUS}", "karst.bus.key.file": "key", "karst.bus.hosts.file": "hosts",
                "karst.cluster.id": CLUSTER_ID,
                "karst.controllers": ",".join(f"{k}@tcp://{self.hosts.address(k)}:{BUS}" for k in self.nodes), **self.config}

    def write_config(self, n, **more):
        """more: None for what is not set at all."""
        with open(self.path(n, "server.properties"), "w", encoding="utf-8") as f:
            f.write("".join(f"{k}={v}\n" for k, v in {**self.settings(n), **more}.items() if v is not None))

    # ---- the command line, on a host

    @property
    def bootstrap(self):
        return ",".join(f"{self.hosts.address(n)}:{CLIENTS}" for n in self.frontends)

    def karst(self, n, command, *more, timeout=90):
        config = ["--config", os.path.join(self.hosts.here, "server.properties")] if command in ("up", "format") else []
        return self.hosts.run(n, [harness.KARST, command, "--data", os.path.join(self.hosts.here, "data"), *config, *more], timeout=timeout)

    def up(self, n):
        outcome = self.karst(n, "up", "-d", *([] if n in self.frontends else ["--frontends", "0"]))
        assert outcome.status == 0, f"{outcome}\n{self.log()}"

    def start(self):
        first = self.karst(1, "format", "--first")
        assert first.status == 0, str(first)
        harness.side_by_side(*[lambda n=n: self.up(n) for n in self.nodes])
        harness.wait_until(self.is_whole, 60, "all voters and brokers")
        return self

    def status(self, n):
        return json.loads(self.hosts.ran(n, [harness.KARST, "status", "--data", os.path.join(self.hosts.here, "data"), "--json"]))

    def pid(self, n, role):
        return next(p["pid"] for p in self.status(n)["processes"] if p["role"] == role)

    def leader(self):
        """The host of the controller that leads, by its own word; None."""
        for n in self.nodes:
            if any(q["role"] == "leader" for q in self.status(n)["quorum"]):
                return n
        return None

    def is_whole(self):
        """One controller leads and all others follow, and clients find each broker, at a front end of its own host where that has one."""
        roles = [q["role"] for n in self.nodes for q in self.status(n)["quorum"]]
        if roles.count("leader") != 1 or roles.count("follower") != len(roles) - 1:
            return False
        brokers = self.brokers()
        return len(brokers) == len(self.nodes) and all(brokers[n].startswith(f"{self.hosts.address(n)}:") for n in self.frontends)

    def brokers(self, asked=None):
        """The brokers that a client on a host with a front end, or asked, is told of: id to address."""
        n = asked or self.frontends[0]
        outcome = self.hosts.run(n, ["kcat", "-b", f"{self.hosts.address(n)}:{CLIENTS}", "-L", "-J", "-m", "5"], timeout=20)
        return {b["id"]: b["name"] for b in json.loads(outcome.out)["brokers"]} if outcome.status == 0 else {}

    def tool(self, n, name, *arguments, timeout=90):
        """Kafka's own tool, run on host n."""
        bootstrap = ["--bootstrap-server", self.bootstrap]
        words = [*arguments, *bootstrap] if name == "cluster" else [*bootstrap, *arguments]
        return self.hosts.run(n, [harness.KAFKA, name, *words], timeout=timeout)

    def whole_log(self, n):
        """The last 16 to 32 MiB of a host's log."""
        text = ""
        for path in sorted(glob.glob(os.path.join(glob.escape(self.path(n, "run")), "**", "karst.log*"), recursive=True), reverse=True):
            with open(path, encoding="utf-8", errors="replace") as f:
                text += f.read()
        return text

    def log(self, n=None):
        """The last lines of a host's log, or of all."""
        if n is None:
            return "\n".join(f"--- host {k}\n{self.log(k)}" for k in self.nodes)
        return "".join(self.whole_log(n).splitlines(True)[-60:])

    def stop(self):
        harness.side_by_side(*[lambda n=n: self.karst(n, "down") for n in self.nodes])
