"""Clients that ask for much and read nothing: memory stays bounded, and others are served."""
import time

import ask
from test_clients import create, produce

MIB = 1 << 20
READERS = 40


def fetch(max_bytes):
    return {"ReplicaId": -1, "MaxWaitMs": 500, "MinBytes": 1, "MaxBytes": max_bytes, "IsolationLevel": 0, "SessionId": 0, "SessionEpoch": -1,
            "RackId": "", "ForgottenTopicsData": [],
            "Topics": [{"Topic": "slow", "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": max_bytes}]}]}


def test_readers_that_do_not_read(own_karst):
    own_karst.start()
    create(own_karst, "slow")
    produce(own_karst, "slow", lambda i: 0, (b"x" * 100000 for _ in range(400)))
    readers = [ask.Connection("127.0.0.1", own_karst.port) for _ in range(READERS)]
    for reader in readers:
        reader.send("Fetch", 12, fetch(60 * MIB))
    for _ in range(5):
        time.sleep(0.5)
        memory = {p["role"]: p["memory_bytes"] for p in own_karst.status()}
        assert memory["storage"] < 400 * MIB and memory["frontend"] < 400 * MIB, memory
        begun = time.monotonic()
        answer = own_karst.ask("Fetch", 12, fetch(MIB))["Responses"][0]["Partitions"][0]
        assert answer["ErrorCode"] == 0 and len(answer["Records"]) > 0
        assert time.monotonic() - begun < 2
    for reader in readers:
        reader.socket.close()
