"""The state of the machine before a system's turn."""
import os

MIB = 1 << 20
LEFT_MIB = 3072  # for the systems and their clients


def _meminfo(key):
    with open("/proc/meminfo", encoding="ascii") as f:
        for line in f:
            if line.startswith(key + ":"):
                return int(line.split()[1]) // 1024
    return 0


class Filler:
    """Fills the page cache with a file that nobody needs, as on a broker that has run for a while.

    On a virtual machine the first touch of a page that the host has not given yet, or has taken back, costs some ten times the copy into it;
    whoever writes first would be charged with it. With a full cache every page is one that was used before. The file has no blocks written:
    reading it costs no disk."""

    def __init__(self, folder):
        self.path = os.path.join(folder, f"karst-bench-fill-{os.getpid()}")

    def fill(self):
        size = (_meminfo("MemAvailable") - LEFT_MIB) * MIB
        room = os.statvfs(os.path.dirname(self.path))
        if size <= 0 or (not os.path.exists(self.path) and size > room.f_bavail * room.f_frsize // 2):
            return
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            piece = bytearray(MIB)
            for at in range(0, size, MIB):
                os.preadv(fd, [piece], at)
        finally:
            os.close(fd)

    def remove(self):
        if os.path.exists(self.path):
            os.unlink(self.path)
