"""namespaces.py - several hosts on one machine: each a network namespace with an address of its own, joined by a bridge.

    reason = namespaces.missing()              # why they cannot be made here (no root ...), or None
    with namespaces.Hosts(folder, 3) as hosts:
        hosts.address(1)                       # "10.77.0.1"; hosts are numbered from 1
        hosts.run(1, ["karst", "up", ...])     # as harness.run, on that host
        with hosts.inside(2): ...              # sockets and threads that this thread makes now are of host 2 (librdkafka's, too)
        hosts.cut(3)                           # both ways, in silence: from and to all others
        hosts.cut_one_way(3, 1)                # what 3 sends to 1 is lost, what 1 sends to 3 arrives; hosts.cut_one_way(3): to all others
        hosts.heal()                           # everything, or hosts.heal(3)

A host also has a folder of its own under a path that is the same on all, `hosts.here` (outside: `hosts.outside(n)`), where its sockets
and data go: as on machines of their own, no host can open another's unix sockets. XDG_RUNTIME_DIR is in it. Process ids are the
machine's, so processes are killed and stopped as ever. Nothing of a host can reach 127.0.0.1 of the machine. Each Hosts is closed off from
every other, so that two test runs use the same addresses.

The namespaces live as long as a process that holds them; `close` ends every process that is still in them. Killed with the test run
they go by themselves, as the holders die with their parent, and whatever ran in them is cut off."""
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess

import harness

NOWHERE = "02:00:00:00:00:99"  # an address of Ethernet that nobody has
NET = "10.77.0"
CLONE_NEWNET = 0x40000000


def missing():
    """Why no namespaces can be made, or None."""
    for program in ("ip", "unshare", "nsenter", "setpriv", "mount"):
        if shutil.which(program) is None:
            return f"no {program}"
    outcome = harness.run(["unshare", "--net", "--mount", "--uts", "--", "sh", "-c",
                           "ip link add name br9 type bridge && ip link add name v8 type veth peer name v9 && mount -t tmpfs none /mnt"])
    return None if outcome.status == 0 else f"namespaces cannot be made here: {outcome.err.strip()[-200:]}"


class Holder:
    """A process that does nothing but hold its namespaces."""

    def __init__(self, mounts, name, script=":"):
        kinds = ["--net", *(["--mount", "--uts"] if mounts else [])]
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *kinds, "--", "sh", "-ec", f"{script}; echo made; exec sleep infinity", name],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.pid = self.process.pid
        self.enter = ["nsenter", "-t", str(self.pid), "-n", *(["-m", "-u"] if mounts else []), "--"]
        if self.process.stdout.readline() != "made\n":
            self.close()
            raise OSError(f"no namespaces for {name}")

    def processes(self):
        """All in its network, but itself."""
        ours = os.readlink(f"/proc/{self.pid}/ns/net")
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if int(pid) != self.pid and os.readlink(f"/proc/{pid}/ns/net") == ours:
                    found.append(int(pid))
        return found

    def close(self):
        if self.process.poll() is None:
            for pid in self.processes():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            harness.wait_until(lambda: not any(harness.alive(p) for p in self.processes()), 20, "the end of what ran on a host")
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Hosts:
    def __init__(self, folder, count):
        """Below folder, which must exist and is the caller's: `here`, and the hosts' folders 1, 2 ..."""
        self.folder, self.count, self.here = folder, count, os.path.join(folder, "here")
        self.holders, self.hub = {}, None
        os.makedirs(self.here)
        try:
            self.hub = Holder(False, "hub", "ip link set lo up; ip link add bridge type bridge; ip link set bridge up")
            for n in self.numbers():
                self.add(n)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        for holder in [*self.holders.values(), *([self.hub] if self.hub else [])]:
            holder.close()
        self.holders, self.hub = {}, None

    def add(self, n):
        os.makedirs(os.path.join(self.outside(n), "run"))
        self.holders[n] = Holder(True, f"host-{n}", f"hostname host-{n}; mount --bind {self.outside(n)} {self.here}; ip link set lo up")
        self.in_hub("ip", "link", "add", f"port{n}", "type", "veth", "peer", "name", "eth0", "address", self.mac(n), "netns",
                    str(self.holders[n].pid))
        self.in_hub("ip", "link", "set", f"port{n}", "master", "bridge", "up")
        self.ip(n, "addr", "add", f"{self.address(n)}/24", "dev", "eth0")
        self.ip(n, "link", "set", "eth0", "up")

    # ---- where things are

    def numbers(self):
        return range(1, self.count + 1)

    def address(self, n):
        return f"{NET}.{n}"

    @staticmethod
    def mac(n):
        return f"02:00:00:00:01:{n:02x}"

    def outside(self, n):
        """The host's folder, which it sees as `here`."""
        return os.path.join(self.folder, str(n))

    # ---- doing something on a host

    def environment(self):
        return {"XDG_RUNTIME_DIR": os.path.join(self.here, "run")}

    def command(self, n, words):
        """For subprocess: its process id is that of words itself."""
        return [*self.holders[n].enter, "env", *(f"{k}={v}" for k, v in self.environment().items()), *words]

    def run(self, n, words, **options):
        return harness.run(self.command(n, words), **options)

    def ran(self, n, words, **options):
        return harness.ran(self.command(n, words), **options)

    def processes(self, n):
        return self.holders[n].processes()

    @contextlib.contextmanager
    def inside(self, n):
        """This thread's network is the host's: for its new sockets, and for those of threads that are started meanwhile."""
        libc = ctypes.CDLL(None, use_errno=True)

        def enter(fd):
            if libc.setns(fd, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        with open("/proc/thread-self/ns/net", "rb") as own, open(f"/proc/{self.holders[n].pid}/ns/net", "rb") as other:
            enter(other.fileno())
            try:
                yield
            finally:
                enter(own.fileno())

    # ---- cutting

    def in_hub(self, *words):
        harness.ran([*self.hub.enter, *words])

    def ip(self, n, *words):
        harness.ran([*self.holders[n].enter, "ip", *words])

    def others(self, n):
        return [k for k in self.numbers() if k != n]

    def cut(self, n):
        """Nothing comes or goes, and nobody is told: its port of the bridge is taken out."""
        self.in_hub("ip", "link", "set", f"port{n}", "nomaster")

    def cut_one_way(self, sender, receiver=None):
        """What sender sends to receiver (None: to all others) is lost; the other direction works."""
        for n in [receiver] if receiver else self.others(sender):
            self.ip(sender, "neigh", "replace", self.address(n), "lladdr", NOWHERE, "dev", "eth0", "nud", "permanent")

    def heal(self, n=None):
        """Ends all cuts that n takes part in; None: all."""
        for k in [n] if n else self.numbers():
            self.in_hub("ip", "link", "set", f"port{k}", "master", "bridge", "up")
        for k in self.numbers():
            for other in self.others(k):
                if n in (None, k, other):
                    self.ip(k, "neigh", "replace", self.address(other), "lladdr", self.mac(other), "dev", "eth0", "nud", "reachable")
