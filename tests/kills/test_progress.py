"""Standstills of histories made by hand."""
import os
import sys
import unittest

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path[:0] = [os.path.join(TOP, "kills"), os.path.join(TOP, "jepsen")]
import checker  # noqa: E402
import progress  # noqa: E402
from test_checker import MEMBER, Hand  # noqa: E402

MS = 1000000


class Stalls(unittest.TestCase):
    def test_nobody_waits(self):
        self.assertEqual(progress.stalls([(0, 1), (10, 11)]), [(0, 1), (10, 11)])

    def test_values_wait_together(self):
        self.assertEqual(progress.stalls([(0, 1), (2, 9), (3, 9), (8, 12)]), [(0, 1), (2, 9), (9, 12)])

    def test_one_that_waits_while_others_get_through(self):
        """Progress is of the key: the one behind does not make it stand still."""
        self.assertEqual(progress.stalls([(0, 20), (1, 2), (3, 4)]), [(0, 2), (2, 4), (4, 20)])

    def test_windows(self):
        waits = {0: [(0, 5 * MS), (6 * MS, 20 * MS)], 1: [(10 * MS, 30 * MS)]}
        self.assertEqual(progress.worst(waits, [(0, 9 * MS), (12 * MS, 40 * MS), (50 * MS, 60 * MS)]), [(5, 0), (18, 1), (0, None)])


class Histories(unittest.TestCase):
    def history(self):
        hand = Hand()
        hand.send((0, 10, 0)).send((0, 11, None, "fail")).subscribe(MEMBER)
        hand.poll(MEMBER, (0, 10)).poll(MEMBER, (0, 10))
        for i, line in enumerate(hand.lines):
            line["time"] = i * MS
        return checker.History(hand.lines)

    def test_produced(self):
        self.assertEqual(progress.produced(self.history()), {0: [(1 * MS, 2 * MS)]})

    def test_delivered_counts_once(self):
        self.assertEqual(progress.delivered(self.history()), {0: [(2 * MS, 8 * MS)]})


if __name__ == "__main__":
    unittest.main()
