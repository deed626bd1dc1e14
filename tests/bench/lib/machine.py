"""The state of the machine before a workload."""
import os

MIB = 1 << 20
FREE_MIB = 300   # what is left free: about what the kernel itself keeps
FILE_BYTES = 1 << 40


def _free_mib():
    with open("/proc/meminfo", encoding="ascii") as f:
        return next(int(line.split()[1]) // 1024 for line in f if line.startswith("MemFree:"))


class Filler:
    """Fills the page cache with a file that nobody needs, as on a broker that has run for a while.

    On a virtual machine the first touch of a page that the host has not given yet, or has taken back as it was free, costs some ten times the
    copy into it; whoever writes first would be charged with it. With a full cache every page is one that was used a moment before. The file
    is one hole, of which each call reads on until little memory is free: it takes no room on the disk and none of its time."""

    def __init__(self, folder):
        self.path, self.at = os.path.join(folder, f"karst-bench-fill-{os.getpid()}"), 0

    def fill(self):
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        piece = bytearray(4 * MIB)
        try:
            os.ftruncate(fd, FILE_BYTES)
            while (more := _free_mib() - FREE_MIB) > 0 and self.at + more * MIB < FILE_BYTES:
                for _ in range(0, min(more, 256), 4):
                    os.preadv(fd, [piece], self.at)
                    self.at += len(piece)
        finally:
            os.close(fd)

    def remove(self):
        if os.path.exists(self.path):
            os.unlink(self.path)
