"""client.py - a run of karst-jepsen from Python."""
import json
import os
import subprocess

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
PROGRAM = os.path.join(os.environ.get("KARST_BIN", os.path.join(ROOT, "build", "release", "bin")), "karst-jepsen")


class Client:
    """Runs from its making on; `finish` ends it in order. The history is the file `path`."""

    def __init__(self, bootstrap, path, topics, partitions, command=(), sets=(), **more):
        """command: what to run it with; sets: (key, value) of librdkafka; more: options of karst-jepsen, with _ for -."""
        self.path = path
        options = [x for t in topics for x in ("--topic", t)] + [x for s in sets for x in ("--set", "%s=%s" % s)]
        options += [x for k, v in more.items() for x in (f"--{k.replace('_', '-')}", str(v))]
        self.process = subprocess.Popen([*command, PROGRAM, "--bootstrap", bootstrap, "--history", path, "--partitions", str(partitions),
                                         *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def marks(self):
        """For each key: when a value was last acknowledged (acked_ns), and given to a member of the group (delivered_ns)."""
        self.process.stdin.write("marks\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"karst-jepsen ended with status {self.process.wait()}"
        return json.loads(line)

    def finish(self, timeout_s=600):
        """Ends it, with its last reads."""
        self.process.communicate("stop\n", timeout=timeout_s)
        assert self.process.returncode == 0, f"karst-jepsen ended with status {self.process.returncode}"

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
