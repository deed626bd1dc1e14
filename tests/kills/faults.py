"""faults.py - what can be done to a process. A fault begins and, where it lasts, ends by itself after its time; `Faults` keeps count of
those that last, so that nothing stays broken behind a test."""
import contextlib
import signal
import threading
import time


KINDS = ("kill", "stop")


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
        fault = Fault(kind, target, victim, seconds)
        if kind == "kill":
            self.system.kill_now(victim)
            fault.ended_ns = fault.begun_ns
        elif kind == "stop":
            self.hold(fault, signal.SIGSTOP, signal.SIGCONT)
        else:
            raise ValueError(kind)
        self.done.append(fault)
        return fault

    def hold(self, fault, begin, end):
        """From one signal to the other, on a thread of its own."""
        fault.victim.send(begin)

        def wait():
            over.wait(fault.seconds)
            with contextlib.suppress(ProcessLookupError):
                fault.victim.send(end)
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
