"""Histories made by hand, each with one thing wrong that the checker has to find, and good ones in which it finds nothing."""
import os
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "tools")]
import ask  # noqa: E402
import batches  # noqa: E402
import checker  # noqa: E402

PRODUCER, READER, MEMBER, OTHER, LAST = 1, 2, 3, 4, 5


class Hand:
    """Writes a history of two keys, a line a step; time goes on by itself."""

    def __init__(self):
        self.lines = [{"time": 0, "process": 0, "type": "info", "f": "keys", "value": ["t-0", "t-1"]}]
        self.op = 0

    def line(self, process, kind, f, value, op=None, **more):
        row = {"time": len(self.lines), "process": process, "type": kind, "f": f, "value": value, **more}
        self.lines.append({**row, "op": op} if op else row)

    def invoke(self, process, f, value):
        self.op += 1
        self.line(process, "invoke", f, value, self.op)
        return self.op

    def step(self, process, f, asked, value, kind="ok", **more):
        self.line(process, kind, f, value, self.invoke(process, f, asked), **more)
        return self

    def send(self, *rows, process=PRODUCER):
        """(key, value, offset), or (key, value, None, "fail" or "info")."""
        states = {row[3] if len(row) > 3 else "ok" for row in rows}
        return self.step(process, "send", [[k, v] for k, v, *_ in rows], [list(r) for r in rows],
                         states.pop() if len(states) == 1 else "info")

    def poll(self, process, *rows, rebalances=(), **more):
        """(offset, value) of key 0."""
        value = [[0, [list(r) for r in rows]]] if rows else []
        return self.step(process, "poll", None, value, **({"rebalances": list(rebalances)} if rebalances else {}), **more)

    def assign(self, process, offset=0):
        return self.step(process, "assign", [[0, offset]], [[0, offset]])

    def subscribe(self, process):
        return self.step(process, "subscribe", "g", "g")

    def commit(self, process, offset, kind="ok"):
        return self.step(process, "commit", [[0, offset]], [[0, offset]] if kind == "ok" else None, kind)

    def committed(self, process, offset):
        return self.step(process, "committed", [0], [[0, offset]])

    def end(self, *rows):
        """The last read, of key 0."""
        return self.assign(LAST).poll(LAST, *rows).step(LAST, "final", None, [])


def written():
    """Three values, acknowledged at 0 to 2."""
    return Hand().send((0, 10, 0)).send((0, 11, 1)).send((0, 12, 2))


WHOLE = ((0, 10), (1, 11), (2, 12))


class Anomalies(unittest.TestCase):
    def found(self, hand, *names):
        verdict = checker.check(hand.lines)
        self.assertEqual(sorted(verdict.anomalies), sorted(names), list(verdict.lines()))
        self.assertEqual(verdict.valid, not names)
        return verdict.anomalies

    def test_a_good_history(self):
        hand = written().assign(READER).poll(READER, (0, 10)).poll(READER).poll(READER, (1, 11), (2, 12))
        hand.subscribe(MEMBER).committed(MEMBER, -1).poll(MEMBER, *WHOLE, rebalances=[["given", [0]]]).commit(MEMBER, 3)
        self.found(hand.step(9, "drain", None, []).end(*WHOLE))

    def test_unknown_outcomes_may_be_there_or_not(self):
        hand = written().send((0, 13, None, "info")).send((0, 14, None, "info"))
        self.found(hand.end(*WHOLE, (3, 14)))

    def test_an_operation_without_an_end_is_unknown(self):
        hand = written()
        hand.invoke(PRODUCER, "send", [[0, 13], [0, 14]])
        self.found(hand.end(*WHOLE, (3, 13)))

    def test_acknowledged_without_an_offset(self):
        self.found(written().send((0, 13, -1)).end(*WHOLE, (3, 13)))
        self.found(written().send((0, 13, -1)).end(*WHOLE), "unseen")

    def test_lost_write(self):
        found = self.found(written().end((0, 10), (2, 12)), "lost-write", "int-poll-skip")
        self.assertEqual(found["lost-write"][0]["value"], 11)

    def test_unseen(self):
        self.found(written().end((0, 10), (1, 11)), "unseen")

    def test_what_is_gone_after_somebody_read_it(self):
        """At the end of the log, where no later value has taken its place; acknowledged or not."""
        self.found(written().assign(READER).poll(READER, *WHOLE).end((0, 10), (1, 11)), "unseen")
        hand = written().send((0, 13, None, "info")).assign(READER).poll(READER, *WHOLE, (3, 13))
        found = self.found(hand.end(*WHOLE), "unseen")
        self.assertEqual((found["unseen"][0]["value"], found["unseen"][0]["offset"]), (13, 3))
        self.found(written().assign(READER).poll(READER, *WHOLE).end((0, 10), (2, 12)), "lost-write", "int-poll-skip")

    def test_a_last_reader_that_did_not_come_to_the_end_says_nothing(self):
        hand = written().assign(READER).poll(READER, *WHOLE).assign(LAST).poll(LAST, (0, 10))
        self.found(hand.step(LAST, "final", None, [0], "fail"), "unread")

    def test_duplicate(self):
        found = self.found(written().end(*WHOLE, (3, 11)), "duplicate")
        self.assertEqual(found["duplicate"][0]["offsets"], [1, 3])

    def test_a_duplicate_of_two_epochs_is_the_clients(self):
        """Told by the log files alone; within one epoch it is the server's."""
        with tempfile.TemporaryDirectory() as top:
            os.makedirs(os.path.join(top, "data", "t-0"))

            def write(*rows):
                with open(os.path.join(top, "data", "t-0", "00000000000000000000.log"), "wb") as f:
                    for base, count, epoch, sequence in rows:
                        f.write(ask.batch([(None, b"x")] * count, base=base, producer=7, epoch=epoch, sequence=sequence))
                hand = written().end(*WHOLE, (3, 11))
                return checker.check(hand.lines, batches.Logs(top, ["t-0", "t-1"]))
            self.assertTrue(write((0, 3, 0, 0), (3, 1, 1, 0)).valid)
            found = write((0, 3, 0, 0), (3, 1, 0, 3)).anomalies
            self.assertEqual(found["duplicate"][0]["writers"], [(7, 0, 1), (7, 0, 3)])
            self.assertFalse(write((0, 3, 0, 0)).valid)

    def test_inconsistent_offsets_of_two_readers(self):
        """What the first of them read is lost, too."""
        hand = written().send((0, 13, None, "info"), process=OTHER).assign(READER).poll(READER, (0, 10), (1, 13))
        self.found(hand.end(*WHOLE), "inconsistent-offsets", "lost-write")

    def test_inconsistent_offsets_of_writer_and_reader(self):
        """Acknowledged at 1, and 1 is another's: lost, too."""
        hand = written().send((0, 13, None, "info"), process=OTHER)
        self.found(hand.end((0, 10), (1, 13), (2, 12)), "inconsistent-offsets", "lost-write")

    def test_aborted_read(self):
        self.found(written().send((0, 13, None, "fail")).end(*WHOLE, (3, 13)), "G1a")

    def test_failed_and_absent_is_right(self):
        self.found(written().send((0, 13, None, "fail")).end(*WHOLE))

    def test_one_operation_with_both(self):
        self.found(written().send((0, 13, 3), (0, 14, None, "fail")).end(*WHOLE, (3, 13), (4, 14)), "G1a")

    def test_unwritten(self):
        self.found(written().end(*WHOLE, (3, 99)), "unwritten")

    def test_corrupt(self):
        self.found(written().end(*WHOLE, (3, -1)), "corrupt")

    def test_int_poll_skip(self):
        self.found(written().assign(READER).poll(READER, (0, 10), (2, 12)).end(*WHOLE), "int-poll-skip")

    def test_int_nonmonotonic_poll(self):
        found = self.found(written().assign(READER).poll(READER, (0, 10), (1, 11), (0, 10)).end(*WHOLE), "int-nonmonotonic-poll")
        self.assertEqual(found["int-nonmonotonic-poll"][0]["offsets"], [1, 0])

    def test_poll_skip(self):
        self.found(written().assign(READER).poll(READER, (0, 10)).poll(READER, (2, 12)).end(*WHOLE), "poll-skip")

    def test_poll_skip_of_the_first_read(self):
        self.found(written().assign(READER).poll(READER, (1, 11), (2, 12)).end(*WHOLE), "poll-skip")

    def test_nonmonotonic_poll(self):
        self.found(written().assign(READER).poll(READER, (0, 10), (1, 11)).poll(READER, (1, 11), (2, 12)).end(*WHOLE),
                   "nonmonotonic-poll")

    def test_an_assignment_says_where_to_begin(self):
        hand = written().assign(READER).poll(READER, *WHOLE).assign(READER, 1)
        self.found(hand.poll(READER, (1, 11), (2, 12)).end(*WHOLE))
        self.found(written().assign(READER, 1).poll(READER, *WHOLE).end(*WHOLE), "nonmonotonic-poll")

    def test_holes_are_no_skips(self):
        """Offsets that nobody knows anything at."""
        hand = Hand().send((0, 10, 0)).send((0, 11, 5)).assign(READER).poll(READER, (0, 10)).poll(READER, (5, 11))
        self.found(hand.end((0, 10), (5, 11)))

    def test_a_rebalance_takes_expectations_away(self):
        hand = written().subscribe(MEMBER).poll(MEMBER, (0, 10), (1, 11))
        hand.poll(MEMBER, (0, 10), rebalances=[["taken", [0]], ["given", [0]]]).poll(MEMBER, (1, 11), (2, 12))
        self.found(hand.end(*WHOLE))
        hand = written().subscribe(MEMBER).poll(MEMBER, (0, 10), (1, 11)).poll(MEMBER, (0, 10)).poll(MEMBER, (1, 11), (2, 12))
        self.found(hand.end(*WHOLE), "nonmonotonic-poll")

    def test_nonmonotonic_send(self):
        hand = Hand().send((0, 10, 1)).send((0, 11, 0))
        self.found(hand.end((0, 11), (1, 10)), "nonmonotonic-send")

    def test_int_nonmonotonic_send(self):
        self.found(Hand().send((0, 10, 1), (0, 11, 0)).end((0, 11), (1, 10)), "int-nonmonotonic-send")

    def test_nonmonotonic_send_of_unknown_outcome(self):
        hand = Hand().send((0, 10, None, "info")).send((0, 11, 0))
        self.found(hand.end((0, 11), (1, 10)), "nonmonotonic-send")

    def test_two_processes_may_be_in_any_order(self):
        self.found(Hand().send((0, 10, 1)).send((0, 11, 0), process=OTHER).end((0, 11), (1, 10)))

    def test_out_of_range(self):
        hand = written().assign(READER).poll(READER, error="__AUTO_OFFSET_RESET ")
        self.found(hand.end(*WHOLE), "out-of-range")

    def test_a_producer_that_ends_is_counted(self):
        hand = written()
        hand.line(PRODUCER, "info", "fatal", "__FATAL", error="out of order sequence")
        verdict = checker.check(hand.end(*WHOLE).lines)
        self.assertTrue(verdict.valid)
        self.assertEqual(verdict.counts["producers that librdkafka ended"], 1)

    def test_group_skip_behind_a_commit(self):
        hand = written().subscribe(MEMBER).poll(MEMBER, (0, 10)).commit(MEMBER, 3)
        self.found(hand.end(*WHOLE), "group-skip")

    def test_group_skip_at_the_end(self):
        hand = written().subscribe(MEMBER).poll(MEMBER, (0, 10), (1, 11)).step(9, "drain", None, [])
        self.found(hand.end(*WHOLE), "group-skip")

    def test_two_members_share(self):
        hand = written().subscribe(MEMBER).subscribe(OTHER).poll(MEMBER, (0, 10)).commit(MEMBER, 1)
        hand.committed(OTHER, 1).poll(OTHER, (1, 11), (2, 12), rebalances=[["given", [0]]]).commit(OTHER, 3)
        self.found(hand.step(9, "drain", None, []).end(*WHOLE))

    def test_group_rewind(self):
        hand = written().subscribe(MEMBER).committed(MEMBER, 2).poll(MEMBER, rebalances=[["given", [0]]]).poll(MEMBER, *WHOLE)
        self.found(hand.end(*WHOLE), "group-rewind")

    def test_lost_commit(self):
        hand = written().subscribe(MEMBER).poll(MEMBER, *WHOLE).commit(MEMBER, 3).subscribe(OTHER).committed(OTHER, 1)
        self.found(hand.end(*WHOLE), "lost-commit")

    def test_a_commit_that_nobody_knew_of_may_come_late(self):
        hand = written().subscribe(MEMBER).poll(MEMBER, *WHOLE).commit(MEMBER, 1, "info").commit(MEMBER, 3)
        self.found(hand.subscribe(OTHER).committed(OTHER, 1).end(*WHOLE))

    def test_a_commit_under_way_may_not_be_there_yet(self):
        hand = written().subscribe(MEMBER).poll(MEMBER, *WHOLE)
        op = hand.invoke(MEMBER, "commit", [[0, 3]])
        asked = hand.invoke(OTHER, "committed", [0])
        hand.line(MEMBER, "ok", "commit", [[0, 3]], op)
        hand.line(OTHER, "ok", "committed", [[0, -1]], asked)
        self.found(hand.end(*WHOLE))

    def test_unread(self):
        self.found(written(), "unread", "unseen")
        self.found(written().assign(LAST).poll(LAST, *WHOLE).step(LAST, "final", None, [1], "fail"), "unread")
        self.found(written().step(9, "drain", None, [0], "fail").end(*WHOLE), "unread")


if __name__ == "__main__":
    unittest.main()
