"""Several log directories: identity, placement, and what a failure of one does to the others."""
import json
import os
import re
import shutil
import signal
import subprocess

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
    wait_until(lambda: [len(partitions_in(p)) for p in paths_of(three.folder)] == [3, 3, 3], 20, "three partitions in each")
    assert described(three) == {p: (0, partitions_in(p)) for p in paths_of(three.folder)}
    for p in range(9):
        assert produce(three, "t", p, f"value-{p}").status == 0
    three.stop()
    assert all(os.path.exists(os.path.join(p, ".kafka_cleanshutdown")) for p in paths_of(three.folder))
    before = [partitions_in(p) for p in paths_of(three.folder)]
    three.start()
    assert [partitions_in(p) for p in paths_of(three.folder)] == before
    assert [consume(three, "t", p) for p in range(9)] == [[f"value-{p}"] for p in range(9)]


def test_what_a_failed_flush_left_is_written_again(three):
    """No disk fails here: a start finds the note that a flush has failed in a directory of a killed node."""
    three.start()
    create(three, "t", 6)
    for p in range(6):
        assert produce(three, "t", p, f"value-{p}").status == 0
    pid = three.pids()["storage"]
    note = os.path.join(three.folder, "second", ".karst_flush_failed")
    with open(note, "w", encoding="utf-8"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: three.pids().get("storage") not in (None, pid) and all_open(three), 30, "the logs")
    assert "/second: a flush failed in an earlier life" in three.log()
    wait_until(lambda: not os.path.exists(note), 20, "the end of the note")
    for p in range(6):
        assert consume(three, "t", p) == [f"value-{p}"]
        assert produce(three, "t", p, f"more-{p}").status == 0
    three.stop()
    assert all(os.path.exists(os.path.join(p, ".kafka_cleanshutdown")) for p in paths_of(three.folder))


def test_a_failing_directory_takes_its_own_partitions_only(three):
    three.start()
    create(three, "t", 6)
    second = os.path.join(three.folder, "second")
    lost = {int(n.split("-")[1]) for n in partitions_in(second)}
    for p in range(6):
        assert produce(three, "t", p, f"value-{p}").status == 0
    os.rename(second, second + ".gone")  # the next checkpoint cannot be written
    last = produce(three, "t", min(lost), "last").status == 0  # or that checkpoint was there first, of what was produced before
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
        found = consume(three, "t", p)
        if p == min(lost) and not last:
            assert found in ([f"value-{p}"], [f"value-{p}", "last"])
        else:
            more = ["last"] if p == min(lost) else [] if p in lost else [f"more-{p}"]
            assert found == [f"value-{p}", *more]


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


def status(cluster):
    return json.loads(ran([KARST, "status", "--data", cluster.data, "--json"]))


def all_open(cluster):
    return all(d["logs_open"] == d["logs"] for d in status(cluster)["directories"]) and status(cluster)["directories"]


def kill_storage(cluster):
    pid = cluster.pids()["storage"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: cluster.pids().get("storage") not in (pid, None), what="a new storage process")


def test_thousands_at_once_do_not_stop_the_others(three):
    """A topic of 3,000 partitions is made; meanwhile another one is written to, and no link ends."""
    three.start()
    create(three, "before", 1)
    made = three.ask("CreateTopics", 7, {"Topics": [{"Name": "many", "NumPartitions": 3000, "ReplicationFactor": 1, "Assignments": [],
                                                     "Configs": []}], "timeoutMs": 60000, "validateOnly": False})
    assert made["Topics"][0]["ErrorCode"] == 0
    for n in range(5):
        assert produce(three, "before", 0, str(n)).status == 0
    wait_until(lambda: sum(len(partitions_in(p)) for p in paths_of(three.folder)) == 3001, 60, "all partitions")
    assert produce(three, "many", 2999, "value").status == 0
    counts = [len(partitions_in(p)) for p in paths_of(three.folder)]
    assert max(counts) - min(counts) <= 1, counts
    assert "refuses us" not in three.log() and "lost" not in three.log(), three.log()
    kill_storage(three)
    wait_until(lambda: all_open(three), 60, "the logs")
    assert consume(three, "many", 2999) == ["value"] and consume(three, "before", 0) == list("01234")


def test_status_shows_directories_and_damage(three):
    three.start()
    create(three, "t", 3)
    for p in range(3):
        assert produce(three, "t", p, f"value-{p}").status == 0
    three.stop()
    home = next(d for d in paths_of(three.folder) if "t-1" in partitions_in(d))
    with open(os.path.join(home, "t-1", "00000000000000000000.log"), "r+b") as f:
        f.seek(64)
        f.write(b"\xff\xff\xff")
    for d in paths_of(three.folder):
        os.unlink(os.path.join(d, ".kafka_cleanshutdown"))
    three.start()
    seen = wait_until(lambda: status(three)["unopened"], what="the damage")
    assert [(u["partition"], u["path"]) for u in seen] == [("t-1", home)] and "damaged at offset 0, byte 0 of segment 0" in seen[0]["reason"]
    assert {d["path"]: (d["state"], d["logs_open"], d["logs"]) for d in status(three)["directories"]} == {
        d: ("online", int(d != home), 1) for d in paths_of(three.folder)}
    assert described(three)[home] == (0, ["t-1"])
    row = next(d for d in three.ask("DescribeLogDirs", 4, {"Topics": [{"Topic": "t", "Partitions": [1]}]})["Results"] if d["LogDir"] == home)
    assert [(p["PartitionSize"] > 0, p["OffsetLag"]) for t in row["Topics"] for p in t["Partitions"]] == [(True, -1)]
    assert "not open: t-1" in ran([KARST, "status", "--data", three.data])
    assert consume(three, "t", 0) == ["value-0"] and consume(three, "t", 2) == ["value-2"]
    assert produce(three, "t", 1, "refused").status != 0
    assert three.tool("topics", "--delete", "--topic", "t").status == 0
    wait_until(lambda: not partitions_in(home), what="the removal of what could not be opened")
    assert status(three)["unopened"] == []


def test_a_partition_in_two_directories_is_served_from_neither_or_the_right_one(three):
    three.start()
    create(three, "t", 1)
    assert produce(three, "t", 0, "value").status == 0
    three.stop()
    home = next(d for d in paths_of(three.folder) if partitions_in(d))
    other = next(d for d in paths_of(three.folder) if not partitions_in(d))
    shutil.copytree(os.path.join(home, "t-0"), os.path.join(other, "t-0"))
    three.start()
    wait_until(lambda: status(three)["unopened"], what="the twins")
    twins = {u["path"] for u in status(three)["unopened"]}
    assert twins in ({home, other}, {other}) and all("same partition" in u["reason"] for u in status(three)["unopened"])
    three.stop()
    shutil.rmtree(os.path.join(other, "t-0"))
    three.start()
    assert consume(three, "t", 0) == ["value"]


def test_a_stop_while_logs_are_opened_keeps_what_is_known(three):
    """No marker stands in a directory whose logs were not all open, and no line of its checkpoints is lost."""
    three.start()
    three.ask("CreateTopics", 7, {"Topics": [{"Name": "many", "NumPartitions": 600, "ReplicationFactor": 1, "Assignments": [],
                                              "Configs": []}], "timeoutMs": 60000, "validateOnly": False})
    wait_until(lambda: sum(len(partitions_in(p)) for p in paths_of(three.folder)) == 600, 60, "all partitions")
    assert produce(three, "many", 7, "value").status == 0
    three.stop()
    for d in paths_of(three.folder):
        os.unlink(os.path.join(d, ".kafka_cleanshutdown"))
    up = subprocess.Popen(three.up_command(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_until(lambda: run([KARST, "status", "--data", three.data]).status == 0 and status(three)["directories"], what="the opening")
    finally:
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=60)
    for d in paths_of(three.folder):
        with open(os.path.join(d, "recovery-point-offset-checkpoint"), encoding="utf-8") as f:
            assert len(f.read().split("\n")) - 3 == len(partitions_in(d))
    three.start()
    wait_until(lambda: all_open(three), 60, "the logs")
    assert consume(three, "many", 7) == ["value"]


def test_a_file_with_a_partitions_name_hurts_nobody(three):
    three.start()
    create(three, "t", 1)
    assert produce(three, "t", 0, "value").status == 0
    three.stop()
    other = next(d for d in paths_of(three.folder) if not partitions_in(d))
    open(os.path.join(other, "u-0"), "w", encoding="utf-8").close()
    three.start()
    assert consume(three, "t", 0) == ["value"]
    three.stop()
    assert os.path.exists(os.path.join(other, ".kafka_cleanshutdown")) and os.path.exists(os.path.join(other, "u-0"))


def test_a_new_directory_joins_after_format(three):
    three.start()
    create(three, "t", 3)
    three.stop()
    third = os.path.join(three.folder, "third")
    shutil.move(third, third + ".old")
    refused(three, "third has no meta.properties", "karst format")
    shutil.move(third + ".old", third)
    fourth = os.path.join(three.folder, "fourth")
    with open(three.config, encoding="utf-8") as f:
        text = f.read().replace(third, f"{third},{fourth}")
    with open(three.config, "w", encoding="utf-8") as f:
        f.write(text)
    refused(three, "fourth has no meta.properties", "karst format")
    command = [KARST, "format", "--data", three.data, "--config", three.config]
    assert ran(command) == "1 of the directories formatted\n"
    assert ran(command) == "0 of the directories formatted\n"
    assert meta_of(fourth)["cluster.id"] == meta_of(third)["cluster.id"] and meta_of(fourth)["directory.id"] != meta_of(third)["directory.id"]
    three.start()
    assert run(command).status == 1
    create(three, "u", 1)
    assert partitions_in(fourth) == ["u-0"]


def test_a_directory_that_cannot_be_written_is_offline_and_the_others_serve(three):
    """As a file system that is mounted read-only: the lock cannot be taken."""
    three.start()
    create(three, "t", 3)
    for p in range(3):
        assert produce(three, "t", p, f"value-{p}").status == 0
    three.stop()
    second = os.path.join(three.folder, "second")
    lost = [int(n.split("-")[1]) for n in partitions_in(second)]
    os.unlink(os.path.join(second, ".lock"))
    os.makedirs(os.path.join(second, ".lock"))  # root may write anywhere, but not to a folder
    three.start()
    assert "second is offline: .lock" in three.log()
    assert described(three)[second][0] == 56
    for p in range(3):
        assert p in lost or consume(three, "t", p) == [f"value-{p}"]


def test_leftovers_of_each_name_mean_what_they_mean_to_kafka(three):
    three.start()
    create(three, "t", 1)
    assert produce(three, "t", 0, "value").status == 0
    three.stop()
    home = next(d for d in paths_of(three.folder) if partitions_in(d))
    hex32 = "0123456789abcdef0123456789abcdef"
    for name in (f"gone-0.{hex32}-delete", f"old-0.{hex32}-stray", "lost+found", "notes", "unknown-0"):
        os.makedirs(os.path.join(home, name))
    for name in ("00000000000000000000.log.deleted", "00000000000000000005.log.cleaned", "00000000000000000005.index.cleaned", "x.tmp"):
        open(os.path.join(home, "t-0", name), "w", encoding="utf-8").close()
    three.start()
    wait_until(lambda: not os.path.exists(os.path.join(home, f"gone-0.{hex32}-delete")), what="the removal of what was deleted")
    wait_until(lambda: any(re.fullmatch(r"unknown-0\.[0-9a-f]{32}-stray", n) for n in os.listdir(home)), what="the stray")
    assert {f"old-0.{hex32}-stray", "lost+found", "notes"} <= set(os.listdir(home))
    assert not [n for n in os.listdir(os.path.join(home, "t-0")) if n.endswith((".deleted", ".cleaned", ".tmp"))]
    assert consume(three, "t", 0) == ["value"]


def test_a_metadata_log_where_it_does_not_belong_is_refused(three):
    three.start()
    three.stop()
    os.makedirs(os.path.join(three.folder, "second", "__cluster_metadata-0"))
    outcome = run(three.up_command("-d"), timeout=60)
    text = outcome.out + outcome.err + three.log()
    assert outcome.status != 0 and "is a metadata log in a directory that is not the metadata's" in text, text


def test_a_full_disk_keeps_no_partition_from_being_read_and_new_ones_wait_for_room(three):
    second = os.path.join(three.folder, "second")
    os.makedirs(second)
    if run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", second]).status != 0:
        pytest.skip("a file system of its own cannot be mounted here")
    try:
        three.start()
        create(three, "t", 3)
        for p in range(3):
            assert produce(three, "t", p, f"value-{p}").status == 0
        three.stop()
        os.unlink(os.path.join(second, ".kafka_cleanshutdown"))
        assert run(["dd", "if=/dev/zero", f"of={second}/fill", "bs=1k"]).status != 0
        three.start()
        assert [consume(three, "t", p) for p in range(3)] == [[f"value-{p}"] for p in range(3)]
        create(three, "u", 3)
        waiting = wait_until(lambda: status(three)["unopened"], what="the partition that has no room")
        assert [u["path"] for u in waiting] == [second] and "No space left" in waiting[0]["reason"]
        assert described(three)[second][0] == 0
        os.unlink(os.path.join(second, "fill"))
        wait_until(lambda: all_open(three), 30, "the partition, once there is room")
        for p in range(3):
            assert produce(three, "u", p, "value").status == 0
        three.stop()
    finally:
        three.stop()
        ran(["umount", second])
