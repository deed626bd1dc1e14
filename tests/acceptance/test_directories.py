"""Several log directories: identity, placement, and what a failure of one does to the others."""
import os
import re
import shutil

import pytest

from harness import KARST, Karst, ran, run, wait_until

NAMES = ("data", "second", "third")
OFTEN = {"log.flush.offset.checkpoint.interval.ms": "100", "replica.high.watermark.checkpoint.interval.ms": "100"}


def paths_of(folder):
    return [os.path.join(folder, name) for name in NAMES]


@pytest.fixture
def three(own_folder):
    """A cluster on three directories, not started."""
    k = Karst(own_folder, config={"log.dirs": ",".join(paths_of(own_folder)), **OFTEN})
    yield k
    k.close()


def meta_of(path):
    with open(os.path.join(path, "meta.properties"), encoding="utf-8") as f:
        return dict(line.strip().split("=", 1) for line in f if "=" in line)


def change_meta(path, key, value):
    meta = {**meta_of(path), key: value}
    with open(os.path.join(path, "meta.properties"), "w", encoding="utf-8") as f:
        f.write("".join(f"{k}={v}\n" for k, v in meta.items()))


def partitions_in(path):
    return sorted(n for n in os.listdir(path) if re.fullmatch(r".*-\d+", n) and not n.startswith("__"))


def create(cluster, topic, partitions):
    outcome = cluster.tool("topics", "--create", "--topic", topic, "--partitions", str(partitions))
    assert outcome.status == 0, str(outcome)


def produce(cluster, topic, partition, text):
    return cluster.kcat("-P", "-t", topic, "-p", str(partition), "-X", "message.timeout.ms=3000", input=text + "\n")


def consume(cluster, topic, partition):
    return cluster.kcat("-C", "-e", "-q", "-t", topic, "-p", str(partition)).out.split()


def described(cluster):
    """Directory to its error and its partitions, by DescribeLogDirs."""
    answer = cluster.ask("DescribeLogDirs", 4, {"Topics": None})
    return {d["LogDir"]: (d["ErrorCode"], sorted(f"{t['Name']}-{p['PartitionIndex']}" for t in d["Topics"] for p in t["Partitions"]))
            for d in answer["Results"]}


def refused(cluster, *words):
    """`karst up` ends at once and says why."""
    outcome = run(cluster.up_command("-d"), timeout=60)
    text = outcome.out + outcome.err + cluster.log()
    assert outcome.status != 0, text
    for word in words:
        assert word in text, text


def test_all_are_formatted_and_get_partitions_in_turn(three):
    three.start()
    metas = [meta_of(p) for p in paths_of(three.folder)]
    assert len({m["cluster.id"] for m in metas}) == 1 and {m["node.id"] for m in metas} == {"1"}
    assert len({m["directory.id"] for m in metas}) == 3
    assert all(os.path.exists(os.path.join(p, "bootstrap.checkpoint")) for p in paths_of(three.folder))
    create(three, "t", 9)
    assert [len(partitions_in(p)) for p in paths_of(three.folder)] == [3, 3, 3]
    assert described(three) == {p: (0, partitions_in(p)) for p in paths_of(three.folder)}
    for p in range(9):
        assert produce(three, "t", p, f"value-{p}").status == 0
    three.stop()
    assert all(os.path.exists(os.path.join(p, ".kafka_cleanshutdown")) for p in paths_of(three.folder))
    before = [partitions_in(p) for p in paths_of(three.folder)]
    three.start()
    assert [partitions_in(p) for p in paths_of(three.folder)] == before
    assert [consume(three, "t", p) for p in range(9)] == [[f"value-{p}"] for p in range(9)]


def test_a_failing_directory_takes_its_own_partitions_only(three):
    three.start()
    create(three, "t", 6)
    second = os.path.join(three.folder, "second")
    lost = {int(n.split("-")[1]) for n in partitions_in(second)}
    for p in range(6):
        assert produce(three, "t", p, f"value-{p}").status == 0
    os.rename(second, second + ".gone")  # the next checkpoint cannot be written
    assert produce(three, "t", min(lost), "last").status == 0
    wait_until(lambda: described(three)[second][0] == 56, what="the directory's failure")
    for p in range(6):
        if p in lost:
            assert produce(three, "t", p, "refused").status != 0
        else:
            assert produce(three, "t", p, f"more-{p}").status == 0
            assert consume(three, "t", p) == [f"value-{p}", f"more-{p}"]
    create(three, "u", 2)  # goes to those that are left
    assert not os.path.exists(second)
    three.stop()
    os.rename(second + ".gone", second)
    three.start()
    for p in range(6):
        more = ["last"] if p == min(lost) else [] if p in lost else [f"more-{p}"]
        assert consume(three, "t", p) == [f"value-{p}", *more]


def test_the_loss_of_the_metadata_directory_ends_the_node(three):
    three.start()
    create(three, "t", 3)
    storage, log = three.pids()["storage"], os.path.join(three.last_run_dir, "karst.log")
    inside = int(partitions_in(three.data)[0].split("-")[1])
    os.rename(three.data, three.data + ".gone")
    produce(three, "t", inside, "value")  # the next checkpoint has something to say
    wait_until(lambda: "holds the metadata log: ending" in open(log, encoding="utf-8").read(), what="the end")
    wait_until(lambda: not os.path.exists(f"/proc/{storage}"), what="the end of the process")
    os.rename(three.data + ".gone", three.data)


@pytest.mark.parametrize("key,value,words", [
    ("cluster.id", "AAAAAAAAAAAAAAAAAAAAAA", ("second belongs to the cluster AAAAAAAAAAAAAAAAAAAAAA",)),
    ("node.id", "7", ("second belongs to node 7",)),
])
def test_a_directory_of_another_is_refused(three, key, value, words):
    three.start()
    three.stop()
    change_meta(os.path.join(three.folder, "second"), key, value)
    refused(three, *words)


def test_two_directories_with_one_id_are_refused(three):
    three.start()
    three.stop()
    change_meta(os.path.join(three.folder, "third"), "directory.id", meta_of(os.path.join(three.folder, "second"))["directory.id"])
    refused(three, "have the same directory.id")


def test_a_directory_without_identity_is_refused(three):
    three.start()
    three.stop()
    second = os.path.join(three.folder, "second")
    os.rename(second, second + ".away")
    refused(three, "second has no meta.properties", "mounted")
    os.makedirs(second)  # as a mount point without its disk
    refused(three, "second has no meta.properties", "mounted")
    os.rmdir(second)
    os.rename(second + ".away", second)
    three.start()


def test_a_lost_metadata_directory_is_not_formatted_anew(three):
    three.start()
    create(three, "t", 3)
    three.stop()
    os.rename(three.data, three.data + ".away")
    refused(three, "data has no meta.properties", "mounted")


def test_a_format_that_was_cut_short_goes_on(three):
    three.start()
    cluster_id = meta_of(three.data)["cluster.id"]
    three.stop()
    for path in paths_of(three.folder):
        for name in os.listdir(path):
            if name not in ("meta.properties", "bootstrap.checkpoint") or path == three.data:
                full = os.path.join(path, name)
                shutil.rmtree(full) if os.path.isdir(full) else os.unlink(full)
    three.start()
    assert {meta_of(p)["cluster.id"] for p in paths_of(three.folder)} == {cluster_id}


def test_a_directory_that_cannot_be_read_is_offline_and_the_others_serve(three):
    three.start()
    create(three, "t", 3)
    second = os.path.join(three.folder, "second")
    lost = [int(n.split("-")[1]) for n in partitions_in(second)]
    for p in range(3):
        assert produce(three, "t", p, f"value-{p}").status == 0
    three.stop()
    os.rename(second, second + ".away")
    open(second, "w", encoding="utf-8").close()
    three.start()
    assert described(three)[second][0] == 56
    for p in range(3):
        if p not in lost:
            assert consume(three, "t", p) == [f"value-{p}"]
    assert not any(f"t-{p}" in partitions_in(d) for p in lost for d in (three.data, os.path.join(three.folder, "third")))
    three.stop()
    os.unlink(second)
    os.rename(second + ".away", second)
    three.start()
    for p in range(3):
        assert consume(three, "t", p) == [f"value-{p}"]


def test_one_folder_by_two_names_is_refused(own_folder):
    k = Karst(own_folder, config={"log.dirs": f"{own_folder}/data,{own_folder}/second,{own_folder}/second/."})
    os.makedirs(os.path.join(own_folder, "second"))
    refused(k, "are one folder")


def test_data_must_be_one_of_several(own_folder):
    k = Karst(own_folder, config={"log.dirs": f"{own_folder}/second,{own_folder}/third"})
    refused(k, "is none of the folders in log.dirs")


def test_a_second_storage_node_is_kept_out(three):
    """By the lock of each directory: the first names of the two differ, so nothing else can notice."""
    three.start()
    other = Karst(os.path.join(three.folder, "other"), config={"log.dirs": f"{three.folder}/other/data,{three.folder}/second"})
    os.makedirs(other.data)
    shutil.copy(os.path.join(three.data, "meta.properties"), other.data)
    change_meta(other.data, "directory.id", "AAAAAAAAAAAAAAAAAAAAAQ")
    outcome = run([os.path.join(os.path.dirname(KARST), "karst-storage"), "--config", run_config(other, three), "--id", "1"], timeout=30)
    assert outcome.status != 0 and "is in use by process" in outcome.err, str(outcome)
    assert ran([KARST, "status", "--data", three.data])


def run_config(other, running):
    """What karst-storage is started with, its run folder another."""
    os.makedirs(os.path.join(other.folder, "run"), exist_ok=True)
    path = os.path.join(other.folder, "storage.properties")
    with open(os.path.join(running.run_dir(), "server.properties"), encoding="utf-8") as f:
        lines = [line for line in f if not line.startswith(("log.dirs", "karst.run.dir"))]
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(lines)
        f.write(f"log.dirs={other.data},{running.folder}/second\nkarst.run.dir={other.folder}/run\n")
    return path
