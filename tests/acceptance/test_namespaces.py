"""The hosts that other tests stand on (namespaces.py) are cut, one way and both, and healed, and see nothing of each other's files."""
import os
import socket
import threading

import harness
import namespaces
import pytest

PORT = 4000
pytestmark = pytest.mark.skipif(namespaces.missing() is not None, reason=str(namespaces.missing()))


@pytest.fixture(scope="module")
def hosts(folder):
    with namespaces.Hosts(folder, 3) as made:
        yield made


class Ear:
    """What arrives on a host, by datagrams: one way at a time can be looked at."""

    def __init__(self, hosts, n):
        self.hosts, self.n, self.heard = hosts, n, set()
        with hosts.inside(n):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((hosts.address(n), PORT))
        self.socket.settimeout(0.2)
        self.ends = False
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def listen(self):
        while not self.ends:
            try:
                self.heard.add(self.socket.recv(100))
            except TimeoutError:
                continue

    def send(self, to, text):
        try:
            self.socket.sendto(text, (self.hosts.address(to), PORT))
        except OSError:  # nobody answers for the address any more, which the kernel says after a while
            pass

    def close(self):
        self.ends = True
        self.thread.join()
        self.socket.close()


@pytest.fixture
def ears(hosts):
    made = {n: Ear(hosts, n) for n in hosts.numbers()}
    yield made
    hosts.heal()
    for ear in made.values():
        ear.close()


def arrives(ears, sender, receiver, text):
    def sent_and_heard():
        ears[sender].send(receiver, text)
        return text in ears[receiver].heard
    harness.wait_until(sent_and_heard, 30, f"{text} from {sender} to {receiver}")


def test_hosts_are_cut_and_healed(hosts, ears):
    for sender in hosts.numbers():
        for receiver in hosts.others(sender):
            arrives(ears, sender, receiver, b"whole %d" % sender)
    hosts.cut_one_way(1, 2)
    ears[1].send(2, b"cut")
    arrives(ears, 2, 1, b"other way")
    arrives(ears, 1, 3, b"third host")
    hosts.heal(2)
    arrives(ears, 1, 2, b"healed")
    assert b"cut" not in ears[2].heard
    hosts.cut(3)
    ears[1].send(3, b"in")
    ears[3].send(1, b"out")
    arrives(ears, 1, 2, b"without the third")
    hosts.heal()
    arrives(ears, 1, 3, b"healed in")
    arrives(ears, 3, 1, b"healed out")
    assert b"in" not in ears[3].heard and b"out" not in ears[1].heard


def test_hosts_have_their_own_folder_and_name(hosts):
    for n in hosts.numbers():
        assert hosts.ran(n, ["hostname"]).strip() == f"host-{n}"
        hosts.ran(n, ["touch", os.path.join(hosts.here, f"of-{n}")])
    for n in hosts.numbers():
        assert [x for x in sorted(os.listdir(hosts.outside(n))) if x.startswith("of-")] == [f"of-{n}"]
        assert f"of-{n}" in hosts.ran(n, ["ls", hosts.here]) and f"of-{n % 3 + 1}" not in hosts.ran(n, ["ls", hosts.here])


def test_what_runs_on_a_host_ends_with_it(own_folder):
    with namespaces.Hosts(own_folder, 1) as hosts:
        hosts.ran(1, ["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $! > " + os.path.join(hosts.here, "pid")])
        with open(os.path.join(hosts.outside(1), "pid"), encoding="utf-8") as f:
            pid = int(f.read())
        assert hosts.processes(1) == [pid]
    assert not harness.alive(pid)
