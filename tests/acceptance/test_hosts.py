"""One constellation over three hosts, with keys between them: records survive cuts of the network in either direction, hosts come and go,
and whoever has no key is left outside."""
import contextlib
import json
import os
import shutil
import threading

import confluent_kafka
import harness
import namespaces
import pytest
import spread

CLIENT = 4  # the host of clients, and of whoever comes later
# Sessions end sooner than by default, for the tests to be short; the rest is as it comes.
CONFIG = {"broker.session.timeout.ms": 3000, "broker.heartbeat.interval.ms": 300}
needs_hosts = pytest.mark.skipif(namespaces.missing() is not None, reason=str(namespaces.missing()))


@contextlib.contextmanager
def constellation():
    """Over hosts 1 to 3; front ends on 1 and 2."""
    folder = harness.new_folder()
    try:
        with namespaces.Hosts(folder, 4) as hosts:
            made = spread.Spread(hosts, config=CONFIG)
            try:
                made.start()
                yield made
            finally:
                print(made.log())
                made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def over():
    with constellation() as made:
        yield made


@pytest.fixture
def unmoved():
    """One whose brokers are where they have been from the beginning."""
    with constellation() as made:
        yield made


class Writer:
    """An idempotent producer with acks=all on the client's host; knows what was acknowledged."""

    def __init__(self, over, topic):
        self.topic, self.acknowledged, self.failed, self.ends = topic, set(), [], False
        with over.hosts.inside(CLIENT):
            self.producer = confluent_kafka.Producer({
                "bootstrap.servers": over.bootstrap, "enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": 120000,
                "reconnect.backoff.max.ms": 500, "socket.timeout.ms": 10000, "topic.metadata.refresh.interval.ms": 1000})
        self.thread = threading.Thread(target=self.write)
        self.thread.start()

    def on_delivery(self, error, message):
        if error is None:
            self.acknowledged.add(int(message.value()))
        else:
            self.failed.append((int(message.value()), str(error)))

    def write(self):
        number = 0
        while not self.ends:
            if len(self.producer) < 500:
                self.producer.produce(self.topic, value=str(number), partition=number % 6, on_delivery=self.on_delivery)
                number += 1
            self.producer.poll(0.002)
        self.producer.flush(120)

    def goes_on(self, what, more=300):
        """So many more were acknowledged from now on, in all partitions."""
        before = set(self.acknowledged)

        def grown():
            new = list(self.acknowledged - before)
            return len(new) >= more and {n % 6 for n in new} == set(range(6))
        harness.wait_until(grown, 90, f"progress {what}")

    def close(self):
        self.ends = True
        self.thread.join()


def topic_of(over, name):
    outcome = over.tool(CLIENT, "topics", "--create", "--topic", name, "--partitions", "6", "--replication-factor", "3", "--config",
                        "min.insync.replicas=2")
    assert outcome.status == 0, str(outcome)
    return name


def partitions(over, topic, asked):
    outcome = over.hosts.run(CLIENT, ["kcat", "-b", f"{over.hosts.address(asked)}:{spread.CLIENTS}", "-L", "-J", "-t", topic, "-m", "5"])
    if outcome.status != 0:
        return []
    return [(p["leader"], {r["id"] for r in p["isrs"]}) for t in json.loads(outcome.out)["topics"] for p in t["partitions"]]


def is_in_sync(over, topic):
    """As all front ends see it: one that was cut off shows, and serves, what it knew before."""
    seen = [partitions(over, topic, asked) for asked in over.frontends]
    return all(found == seen[0] for found in seen) and len(seen[0]) == 6 and all(isr == set(over.nodes) and leader > 0 for leader, isr in seen[0])


def leads_nothing(over, topic, node, asked):
    found = partitions(over, topic, asked)
    return len(found) == 6 and all(leader not in (-1, node) for leader, _ in found)


def read_all(over, topic):
    """{partition: [(offset, number)]} by offset."""
    outcome = over.hosts.run(CLIENT, ["kcat", "-b", over.bootstrap, "-t", topic, "-C", "-e", "-q", "-f", "%p %o %s\\n"], timeout=90)
    assert outcome.status == 0, str(outcome)
    seen = {}
    for line in outcome.out.split("\n")[:-1]:
        partition, offset, number = map(int, line.split())
        seen.setdefault(partition, []).append((offset, number))
    return {p: sorted(records) for p, records in seen.items()}


def check_records(over, writer):
    """Every acknowledged record is there, once, and in order in its partition."""
    seen = read_all(over, writer.topic)
    numbers = [number for records in seen.values() for _, number in records]
    missing = sorted(writer.acknowledged - set(numbers))
    assert not missing, f"acknowledged and not read: {len(missing)} of {len(writer.acknowledged)}: {missing[:5]} ... {missing[-5:]}, " \
        f"read to {({p: records[-1] for p, records in sorted(seen.items())})}, " \
        f"and once more to {({p: records[-1] for p, records in sorted(read_all(over, writer.topic).items())})}"
    assert len(numbers) == len(set(numbers)), "records are there twice"
    for records in seen.values():
        in_order = [number for _, number in records]
        assert in_order == sorted(in_order), "records of a partition are out of order"
    assert writer.failed == []


@contextlib.contextmanager
def written(over, name):
    """A load on a topic of its own, which goes on inside the block; then everything that was acknowledged is there."""
    writer = Writer(over, topic_of(over, name))
    try:
        writer.goes_on("at first")
        yield writer
    finally:
        over.hosts.heal()
        writer.close()
    check_records(over, writer)


def descriptors(over):
    return {p["pid"]: len(os.listdir(f"/proc/{p['pid']}/fd")) for n in over.nodes for p in over.status(n)["processes"]}


@needs_hosts
def test_no_acknowledged_record_is_lost_when_a_host_is_cut(over):
    with written(over, "cuts") as writer:
        before = descriptors(over)
        for name, cut in (("both ways", lambda: over.hosts.cut(3)), ("of what it sends", lambda: over.hosts.cut_one_way(3)),
                          ("of what it is sent", lambda: [over.hosts.cut_one_way(n, 3) for n in (1, 2, CLIENT)])):
            cut()
            harness.wait_until(lambda: leads_nothing(over, "cuts", 3, 1), 60, f"leaders elsewhere in a cut {name}")
            writer.goes_on(f"in a cut {name}")
            over.hosts.heal()
            harness.wait_until(lambda: is_in_sync(over, "cuts"), 60, f"all in sync after a cut {name}")
            writer.goes_on(f"after a cut {name}")
    # Nothing is left of connections that the cuts have ended; some lanes were not open at first.
    harness.wait_until(lambda: all(n <= before[pid] + 15 for pid, n in descriptors(over).items()), 60, "the descriptors of before")


@needs_hosts
def test_the_leading_controller_may_be_cut_off(over):
    with written(over, "controllers") as writer:
        leader = harness.wait_until(over.leader, 30, "a leader of the controllers")
        # Its host goes on serving clients, and hears of the others, but nothing that it says arrives: each record needs another node.
        for other in over.nodes:
            if other != leader:
                over.hosts.cut_one_way(leader, other)
        asked = next(n for n in over.frontends if n != leader)
        harness.wait_until(lambda: leads_nothing(over, "controllers", leader, asked), 60, "leaders elsewhere")
        over.hosts.heal()
        harness.wait_until(lambda: is_in_sync(over, "controllers"), 60, "all in sync")
        writer.goes_on("at last")


def fetch_error(over, asked, topic, partition, offset):
    body = {"ReplicaId": -1, "MaxWaitMs": 0, "MinBytes": 0, "MaxBytes": 1000, "IsolationLevel": 0, "SessionId": 0, "SessionEpoch": -1,
            "ForgottenTopicsData": [], "RackId": "", "Topics": [{"Topic": topic, "Partitions": [
                {"Partition": partition, "CurrentLeaderEpoch": -1, "FetchOffset": offset, "LastFetchedEpoch": -1, "LogStartOffset": -1,
                 "PartitionMaxBytes": 1000}]}]}
    with over.hosts.inside(CLIENT), harness.ask.Connection(over.hosts.address(asked), spread.CLIENTS) as c:
        return c.ask("Fetch", 12, body)["Responses"][0]["Partitions"][0]["ErrorCode"]


@needs_hosts
def test_who_is_cut_off_tells_no_client_that_an_offset_is_out_of_range(over):
    """It may be of those that others have led to since; a client would begin again somewhere else."""
    name = topic_of(over, "beyond")
    led = harness.wait_until(lambda: [p for p, (leader, isr) in enumerate(partitions(over, name, 1)) if leader == 1 and len(isr) == 3], 60,
                             "a partition of the first host")[0]
    assert fetch_error(over, 1, name, led, 1000) == 1
    for other in (2, 3):
        over.hosts.cut_one_way(1, other)
    try:
        harness.wait_until(lambda: fetch_error(over, 1, name, led, 1000) == 6, 30, "NOT_LEADER_OR_FOLLOWER")
        assert fetch_error(over, 1, name, led, 0) == 0  # the rest goes on: nobody may lead in its place, as when there are no controllers
    finally:
        over.hosts.heal()
    harness.wait_until(lambda: is_in_sync(over, name) and fetch_error(over, 1, name, led, 1000) == 1, 60, "all in sync")


def coordinator(over, group, asked):
    with over.hosts.inside(CLIENT), harness.ask.Connection(over.hosts.address(asked), spread.CLIENTS) as c:
        found = c.ask("FindCoordinator", 2, {"Key": group, "KeyType": 0})
    return found["NodeId"], found["Host"]


@needs_hosts
def test_a_group_goes_on_without_the_host_of_its_front_end(unmoved):
    """The third broker's clients come by another host's front end. With that host gone it is found at the other front end: librdkafka goes
    there only when its coordinator is said to be another broker. What clients have sent to the host meanwhile never runs."""
    over = unmoved
    name = topic_of(over, "group-moves")
    harness.wait_until(lambda: coordinator(over, "g", 1)[0] >= 0, 30, "a coordinator")
    group = next(g for g in map("g{}".format, range(200)) if coordinator(over, g, 1)[0] == 3)
    gone = next(n for n in over.frontends if over.hosts.address(n) == coordinator(over, group, 1)[1])
    other = next(n for n in over.frontends if n != gone)
    writer, read = Writer(over, name), []
    with over.hosts.inside(CLIENT):
        reader = confluent_kafka.Consumer({"bootstrap.servers": over.bootstrap, "group.id": group, "auto.offset.reset": "earliest",
                                           "socket.timeout.ms": 2000, "topic.metadata.refresh.interval.ms": 1000})
        reader.subscribe([name])
        held = harness.ask.Connection(over.hosts.address(gone), spread.CLIENTS)

    def reads(more):
        until = len(read) + more

        def enough():
            read.extend(m.value() for m in reader.consume(1000, 0.1) if m.error() is None)
            return len(read) >= until
        harness.wait_until(enough, 60, "records of the group")
    try:
        writer.goes_on("at first")
        reads(300)
        assert held.ask("ApiVersions", 3, {"ClientSoftwareName": "t", "ClientSoftwareVersion": "1"})["ErrorCode"] == 0
        over.hosts.cut(gone)
        harness.wait_until(lambda: coordinator(over, group, other)[1] == over.hosts.address(other), 30, "another address")
        assert coordinator(over, group, other)[0] not in (3, gone)
        reads(len(writer.acknowledged) + 300)
        over.hosts.heal()
        harness.wait_until(lambda: is_in_sync(over, name) and over.is_whole(), 60, "all of it")
        with pytest.raises((OSError, EOFError)):  # what the client took for dead is
            held.ask("ApiVersions", 3, {"ClientSoftwareName": "t", "ClientSoftwareVersion": "1"})
        writer.goes_on("at last")
    finally:
        over.hosts.heal()
        writer.close()
        reader.close()
        held.socket.close()
    check_records(over, writer)


@needs_hosts
def test_a_host_is_stopped_and_comes_back(over):
    with written(over, "hosts") as writer:
        assert over.karst(3, "down").status == 0
        harness.wait_until(lambda: leads_nothing(over, "hosts", 3, 1), 60, "leaders elsewhere")
        writer.goes_on("without the third host")
        over.up(3)
        harness.wait_until(lambda: is_in_sync(over, "hosts"), 60, "all in sync")


@needs_hosts
def test_an_empty_disk_joins_and_founds_nothing(over):
    """The first host as well: what comes up with an empty directory joins the others, it never begins a cluster of its own. Its controller
    votes in the place of the one that is lost (KIP-1186)."""
    with written(over, "disks") as writer:
        pass
    assert over.karst(1, "down").status == 0
    shutil.rmtree(over.path(1, "data"))
    over.up(1)
    harness.wait_until(over.is_whole, 60, "all voters")
    harness.wait_until(lambda: is_in_sync(over, "disks"), 60, "all in sync")
    check_records(over, writer)


def newcomer(over, number, **config):
    """A broker on the clients' host that has not been there before: its files."""
    shutil.rmtree(over.path(CLIENT, "data"), ignore_errors=True)
    over.write_hosts(CLIENT, over.keys)
    key = over.make_key(CLIENT, f"key-{number}")
    over.write_config(CLIENT, **{"process.roles": "broker", "node.id": number, "karst.bus.key.file": f"key-{number}", **config})
    return key


def forget(over):
    over.karst(CLIENT, "down")
    shutil.rmtree(over.path(CLIENT, "run"))
    os.makedirs(over.path(CLIENT, "run"))


@needs_hosts
def test_a_host_that_is_not_on_the_list_stays_outside_until_it_is(over):
    key = newcomer(over, 4)
    over.up(CLIENT)
    try:
        harness.wait_until(lambda: f"its key {key} is not on the list of hosts" in over.log(1) + over.log(2) + over.log(3), 30, "a refusal")
        harness.wait_until(lambda: "it does not have our key on its list of hosts" in over.log(CLIENT), 30, "word of it")
        assert sorted(over.brokers()) == [1, 2, 3]
        for n in over.nodes:
            over.write_hosts(n, {**over.keys, CLIENT: key})
        harness.wait_until(lambda: sorted(over.brokers()) == [1, 2, 3, 4], 60, "the new broker")
    finally:
        forget(over)
        for n in over.nodes:
            over.write_hosts(n, over.keys)
    outcome = over.tool(1, "cluster", "unregister", "--id", "4")
    assert outcome.status == 0, str(outcome)


@needs_hosts
def test_a_host_of_the_list_cannot_pass_for_another(over):
    """An intruder has one host, with its key: it can be no node but its own, and no controller that the others are not configured with."""
    at = over.hosts.address(CLIENT)
    with written(over, "impostors") as writer:
        key = newcomer(over, 3, **{
            "process.roles": "broker,controller", "listeners": f"PLAINTEXT://{at}:{spread.CLIENTS},CONTROLLER://{at}:{spread.CLIENTS - 1}",
            "karst.controllers": ",".join(f"{n}@tcp://{over.hosts.address(n if n != 3 else CLIENT)}:{spread.BUS}" for n in over.nodes)})
        try:
            with open(over.path(CLIENT, "hosts"), "a", encoding="utf-8") as f:
                f.write(f"{at} {key} 3\n")  # its own list says what it likes
            for n in over.nodes:
                over.write_hosts(n, {**over.keys, CLIENT: key})
            over.up(CLIENT)
            said = f"a peer at {at} is refused, it says that it is "
            words = {"CONTROLLER 3": "karst.controllers does not have controller 3 there", "": "the list of hosts has node 3 at "}
            for who, why in words.items():
                harness.wait_until(lambda who=who, why=why: any(said + who in line and why in line for n in over.nodes
                                                                for line in over.whole_log(n).splitlines()), 60, f"{who} {why}")
            harness.wait_until(lambda: "refuses us: HOST" in over.whole_log(CLIENT), 30, "word of it")
            writer.goes_on("beside an impostor")
            assert over.is_whole() and all(not at + ":" in address for address in over.brokers().values())
        finally:
            forget(over)
            for n in over.nodes:
                over.write_hosts(n, over.keys)


@needs_hosts
def test_wrong_keys_and_none_are_refused_and_hurt_nobody(over):
    with written(over, "strangers") as writer:
        try:
            newcomer(over, 5)
            with open(over.path(CLIENT, "hosts"), "w", encoding="utf-8") as f:  # the keys of others for each
                f.write("".join(f"{over.hosts.address(n)} {over.keys[n % 3 + 1]}\n" for n in over.nodes))
            over.up(CLIENT)
            harness.wait_until(lambda: "its key may be another than the list of hosts has" in over.log(CLIENT), 30, "no key that fits")
            forget(over)
            newcomer(over, 6, **{"karst.bus.unencrypted": "true", "karst.bus.key.file": None, "karst.bus.hosts.file": None})
            over.up(CLIENT)
            words = "one side encrypts, and the other does not"
            harness.wait_until(lambda: any(words in over.log(n) for n in (1, 2, 3, CLIENT)), 60, "no plain peer")
            writer.goes_on("beside strangers")
            assert sorted(over.brokers()) == [1, 2, 3]
        finally:
            forget(over)


@needs_hosts
def test_what_karst_hosts_makes_is_all_that_three_hosts_need(own_folder):
    with namespaces.Hosts(own_folder, 3) as hosts:
        made, addresses = os.path.join(own_folder, "made"), [hosts.address(n) for n in hosts.numbers()]
        harness.ran([harness.KARST, "hosts", made, *addresses])
        for n in hosts.numbers():
            shutil.copytree(os.path.join(made, hosts.address(n)), os.path.join(hosts.outside(n), "etc"))
        config = ["--data", os.path.join(hosts.here, "data"), "--config", os.path.join(hosts.here, "etc", "server.properties")]
        try:
            hosts.ran(1, [harness.KARST, "format", "--first", *config])
            harness.side_by_side(*[lambda n=n: hosts.ran(n, [harness.KARST, "up", "-d", *config], timeout=90) for n in hosts.numbers()])

            def brokers():
                outcome = hosts.run(3, ["kcat", "-b", f"{addresses[2]}:{spread.CLIENTS}", "-L", "-J"])
                return outcome.status == 0 and {b["id"]: b["name"].split(":")[0] for b in json.loads(outcome.out)["brokers"]}
            harness.wait_until(lambda: brokers() == {n: hosts.address(n) for n in hosts.numbers()}, 60, "three brokers at their own hosts")
            hosts.ran(1, ["kcat", "-b", f"{addresses[0]}:{spread.CLIENTS}", "-t", "greetings", "-P"], input="hello\n")
            assert hosts.ran(2, ["kcat", "-b", f"{addresses[1]}:{spread.CLIENTS}", "-t", "greetings", "-C", "-e", "-q"]) == "hello\n"
        finally:
            for n in hosts.numbers():
                hosts.run(n, [harness.KARST, "down", *config[:2]], timeout=90)


def test_karst_hosts_touches_nothing_that_is_there(own_folder):
    made = os.path.join(own_folder, "made")
    for wrong, words in ((["a/b"], "a/b is no name"), (["a", "b", "a"], "a is named twice"), (["-x y"], "is no name")):
        outcome = harness.run([harness.KARST, "hosts", made, *wrong])
        assert outcome.status == 1 and words in outcome.err and not os.path.exists(made), str(outcome)
    harness.ran([harness.KARST, "hosts", made, "alpha"])
    outcome = harness.run([harness.KARST, "hosts", made, "alpha"])
    assert outcome.status == 1 and "File exists" in outcome.err, str(outcome)
    assert os.stat(os.path.join(made, "alpha", "key")).st_mode & 0o777 == 0o600
    with open(os.path.join(made, "alpha", "server.properties"), encoding="utf-8") as f:
        text = f.read()
    assert "karst.bus.listen=0.0.0.0:9300\nkarst.bus.advertised=alpha:9300\n" in text and "offsets.topic.replication.factor=1" in text


# ---- what karst up refuses, on any machine

@pytest.fixture
def node(own_folder):
    """One host's files, wrong in one way."""
    def run(command, *more, mode=0o600, keys=True, **config):
        with open(os.path.join(own_folder, "server.properties"), "w", encoding="utf-8") as f:
            all_keys = {"node.id": 1, "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 2}",
                        "karst.bus.listen": f"127.0.0.1:{bus}", "karst.cluster.id": spread.CLUSTER_ID, "karst.controllers": f"1@tcp://127.0.0.1:{bus}",
                        **({"karst.bus.key.file": "key", "karst.bus.hosts.file": "hosts"} if keys else {}), **config}
            f.write("".join(f"{k.replace('__', '.')}={v}\n" for k, v in all_keys.items() if v is not None))
        if not os.path.exists(key):
            public = harness.ran([harness.KARST, "key", key]).strip()
            with open(os.path.join(own_folder, "hosts"), "w", encoding="utf-8") as f:
                f.write(f"127.0.0.1 {public}\n")
        os.chmod(key, mode)
        return harness.run([harness.KARST, command, "--data", data, "--config", os.path.join(own_folder, "server.properties"), *more])
    key, data = os.path.join(own_folder, "key"), os.path.join(own_folder, "data")
    port = harness.free_port((0, 2, *range(16, 32)))  # none for both
    bus = port + 16
    yield run
    harness.run([harness.KARST, "down", "--data", data])


@pytest.mark.parametrize("wrong, words", [
    ({"keys": False}, "there are no keys: set karst.bus.key.file"),
    ({"karst__bus__key__file": None}, "karst.bus.key.file and karst.bus.hosts.file go together"),
    ({"karst__bus__unencrypted": "true"}, "contradict each other"),
    ({"karst__bus__hosts__file": "nowhere"}, "nowhere: No such file"),
    ({"mode": 0o644}, "can be read by others than its owner"),
    ({"karst__cluster__id": None}, "karst.cluster.id has to be set"),
    ({"karst__controllers": "2@tcp://127.0.0.1:9300"}, "karst.controllers names 0 of the controllers that run here"),
    ({"listeners": "PLAINTEXT://127.0.0.1:20000"}, "has none of controller.listener.names=CONTROLLER"),
    ({"karst__controllers": "1@127.0.0.1:9300"}, "ID@tcp://HOST:PORT was expected"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_what_does_not_fit_is_refused_before_anything_starts(node, wrong, words):
    wrong = {k.replace("__", "."): v for k, v in wrong.items()} if "mode" not in wrong and "keys" not in wrong else wrong
    outcome = node("up", "-d", **wrong)
    assert outcome.status == 78 and words in outcome.err, str(outcome)


def test_a_host_that_is_alone_again_may_keep_its_keys(node):
    """Their paths begin at the folder of the file, as ever; wrong ones are refused as early."""
    alone = {"karst.bus.listen": None, "karst.controllers": None, "karst.cluster.id": None}
    outcome = node("up", "-d", mode=0o640, **alone)
    assert outcome.status == 78 and "can be read by others" in outcome.err, str(outcome)
    outcome = node("up", "-d", **alone)
    assert outcome.status == 0, str(outcome)


def test_only_an_empty_directory_begins_a_cluster_and_only_once(node):
    assert node("format", "--first").status == 0
    outcome = node("format", "--first")
    assert outcome.status == 1 and "is of node 1 of the cluster 4L6g3nShT-eMCtK--X86sw already" in outcome.err, str(outcome)
    outcome = node("up", "-d", **{"karst.cluster.id": "another-another-anothe"})
    assert outcome.status == 1 and "belongs to the cluster 4L6g3nShT-eMCtK--X86sw" in outcome.err, str(outcome)
    outcome = node("up", "-d")
    assert outcome.status == 0, str(outcome)
