"""disks.py - a small disk under each folder, which a test can fill and empty: a tmpfs of its own."""
import contextlib
import os

import harness

BALLOON = "balloon"  # no name that a server would look at twice


def missing(folder):
    """Why none can be mounted here, or None."""
    probe = Disk(os.path.join(folder, "probe"))
    try:
        probe.mount()
    except AssertionError as e:
        return f"no file system of its own can be mounted here: {e}"
    probe.unmount()
    return None


class Disk:
    def __init__(self, path, size="256m"):
        self.path, self.size = path, size

    def mount(self):
        os.makedirs(self.path, exist_ok=True)
        harness.ran(["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", self.path])

    def fill(self):
        """Takes what room there is, to the last byte; again, when somebody made some."""
        with open(os.path.join(self.path, BALLOON), "ab", buffering=0) as f:
            for piece in (b"x" * (1 << 20), b"x" * 4096, b"x"):
                with contextlib.suppress(OSError):
                    while f.write(piece) == len(piece):
                        pass

    def empty(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, BALLOON))

    def unmount(self):
        harness.run(["umount", "-l", self.path])
