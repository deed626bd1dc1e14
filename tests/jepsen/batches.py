"""batches.py - whose a record in a server's log files is: (producer id, epoch, sequence) by key and offset.

An idempotent producer that gives a value up, or that is told of a sequence out of order while a leader changes, takes a new epoch and sends
again what it had under way (librdkafka up to 2.10 and Java both do; librdkafka issue 4953). What was written twice under two epochs is the
client's doing, and no server can know it. Twice under one epoch is the server's, and only the log tells the two apart."""
import os
import struct

HEADER = struct.Struct(">qiibIhiqqqhii")  # a batch of magic 2 up to its records


def batches(data):
    """(base offset, last offset delta, producer id, epoch, base sequence) of each whole batch."""
    at = 0
    while at + HEADER.size <= len(data):
        base, length, _, magic, _, _, last_delta, _, _, producer, epoch, sequence, _ = HEADER.unpack_from(data, at)
        if magic != 2 or length < HEADER.size - 12 or at + 12 + length > len(data):
            return
        yield base, last_delta, producer, epoch, sequence
        at += 12 + length


class Logs:
    """The log files below some folders, of any replica; read when they are first asked for."""

    def __init__(self, top, names):
        """names: the keys' names, TOPIC-PARTITION, in the order of the keys."""
        self.top, self.names, self.read = top, names, {}

    def load(self, key):
        found = {}
        for folder, _, files in os.walk(self.top):
            for name in files if os.path.basename(folder) == self.names[key] else ():
                if not name.endswith(".log"):
                    continue
                with open(os.path.join(folder, name), "rb") as f:
                    for base, last, producer, epoch, sequence in batches(f.read()):
                        found.update({base + i: (producer, epoch, sequence + i) for i in range(last + 1)})
        return found

    def writer(self, key, offset):
        """(producer id, epoch, sequence), or None when no file has it."""
        if key not in self.read:
            self.read[key] = self.load(key)
        return self.read[key].get(offset)
