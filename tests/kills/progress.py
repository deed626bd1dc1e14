"""progress.py - how long nothing moved, from a history of karst-jepsen.

A key stands still while values of it wait and none gets through: a producer's wait from their sending to their acknowledgement, the group's
from their acknowledgement to their first delivery to a member. So a quiet producer is no standstill, and one that waits is, however
many values wait."""
import collections


def stalls(waits):
    """[(begun, ended)] of each time without progress; waits: (since, until) of each value, of one key."""
    waits = sorted(waits, key=lambda w: w[1])
    least = [0] * len(waits)
    oldest = float("inf")
    for i in range(len(waits) - 1, -1, -1):
        oldest = min(oldest, waits[i][0])
        least[i] = oldest
    found, before = [], 0
    for (_, until), since in zip(waits, least):
        if until > max(before, since):
            found.append((max(before, since), until))
        before = until
    return found


def produced(history):
    """{key: waits} of the values that were acknowledged."""
    waits = collections.defaultdict(list)
    for op in history.of("send"):
        for key, _, offset, *_ in op.value or []:
            if offset is not None:
                waits[key].append((op.begun, op.ended))
    return waits


def delivered(history):
    """{key: waits} of what members of the group got, each value once."""
    acknowledged = {(key, value): op.ended for op in history.of("send") for key, value, offset, *_ in op.value or [] if offset is not None}
    members = {op.process for op in history.of("subscribe")}
    waits, seen = collections.defaultdict(list), set()
    for op in history.of("poll"):
        if op.process not in members:
            continue
        for key, rows in op.value or []:
            for _, value in rows:
                if (key, value) in acknowledged and (key, value) not in seen:
                    seen.add((key, value))
                    waits[key].append((min(acknowledged[key, value], op.ended), op.ended))
    return waits


def worst(waits, windows):
    """For each window, (begun, ended) in ns: (ms, key) of the longest standstill within it; (0, None) when there is none."""
    found = [(0, None)] * len(windows)
    for key, rows in waits.items():
        for since, until in stalls(rows):
            for i, (begun, ended) in enumerate(windows):
                if since < ended and until > begun:
                    found[i] = max(found[i], ((min(until, ended) - max(since, begun)) / 1e6, key), key=lambda x: x[0])
    return found
