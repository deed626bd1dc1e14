"""faults.py - what can be done to a process. A fault begins and, where it lasts, ends by itself after its time; `Faults` keeps count of
those that last, so that nothing stays broken behind a test."""
import contextlib
import signal
import threading
import time


KINDS = ("kill", "stop", "disk", "cut", "oneway")
REFILL_S = 0.3


class Fault:
    """One that was done: what, to whom, and when it began and ended, in ns of the monotonic clock."""

    def __init__(self, kind, target, victim, seconds):
        self.kind, self.target, self.victim, self.seconds = kind, target, victim, seconds
        self.begun_ns, self.ended_ns = time.monotonic_ns(), None

    def row(self):
        return {"kind": self.kind, "target": self.target, "victim": self.victim.name, "seconds": self.seconds,
                "begun_ns": self.begun_ns, "ended_ns": self.ended_ns}


class Faults:
    def __init__(self, system):
        self.system, self.done, self.lasting = system, [], []

    def do(self, kind, target, victim, seconds=None):
        """ProcessLookupError: the victim is gone already."""
        fault = Fault(kind, target, victim, seconds)
        if kind == "kill":
            self.system.kill_now(victim)
            fault.ended_ns = fault.begun_ns
        elif kind == "stop":
            victim.send(signal.SIGSTOP)
            self.last(fault, lambda: self.resume(victim))
        elif kind == "disk":
            disk = self.system.disk_of(victim)
            disk.fill()
            self.last(fault, lambda: self.make_room(disk, victim), again=disk.fill)
        else:
            self.system.begin_cut(kind, victim)
            self.last(fault, lambda: self.heal(victim))
        self.done.append(fault)
        return fault

    @staticmethod
    def resume(victim):
        with contextlib.suppress(ProcessLookupError):
            victim.send(signal.SIGCONT)

    def make_room(self, disk, victim):
        disk.empty()
        self.system.revive(victim)

    def heal(self, victim):
        self.system.end_cut(victim)
        self.system.revive(victim)

    def last(self, fault, end, again=None):
        """Until its time is over, or all faults are ended; then `end`, on a thread of its own. `again` keeps it up meanwhile."""
        def wait():
            until = time.monotonic() + fault.seconds
            while time.monotonic() < until and not over.wait(min(REFILL_S if again else 60, max(0, until - time.monotonic()))):
                if again:
                    again()
            end()
            fault.ended_ns = time.monotonic_ns()
        over = threading.Event()
        thread = threading.Thread(target=wait, daemon=True)
        self.lasting.append((thread, over))
        thread.start()

    def busy(self):
        """Whether one lasts still."""
        self.lasting = [x for x in self.lasting if x[0].is_alive()]
        return bool(self.lasting)

    def end_all(self):
        for thread, over in self.lasting:
            over.set()
            thread.join(30)
        self.lasting = []
