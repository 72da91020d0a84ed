"""Node's `ws` package consumes, and Node's own HTTPS client produces."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from broker import PATIENCE
from events import BATCH, EVENT, EVENTS, STRUCTURED, assert_clear, encode, record, records
from sessions import SUB_PROTOCOL, address, produce

HERE = Path(__file__).resolve().parent / "node"


@pytest.fixture(autouse=True, scope="module")
def node():
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    assert (HERE / "node_modules" / "ws").is_dir(), "the package ws is not installed: run tests/third_party/run"


def run(script, orders, code=0):
    done = subprocess.run(
        ["node", HERE / script, json.dumps(orders)], capture_output=True, text=True, timeout=PATIENCE, cwd=HERE
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


def consume(broker, client="demo", group="g", **orders):
    certificate, key = broker.pair(client) if client else (None, None)
    orders = {"protocols": [SUB_PROTOCOL], **orders}
    where = {"url": address(broker, group=group), "ca": broker.authority, "cert": certificate, "key": key}
    return run("consumer.mjs", {**where, **orders})


def ids(seen):
    return [json.loads(message)["id"] for message in seen["messages"]]


def test_ws_consumes_confirms_and_resumes(broker):
    produce(broker, records(20, partitionkey="k"))
    seen = consume(broker, take=20, send=["confirm:12"])
    assert ids(seen) == [str(number) for number in range(20)]
    assert (seen["protocol"], seen["extensions"], seen["binary"]) == (SUB_PROTOCOL, "", 0)
    assert (seen["code"], seen["pongs"]) == (1000, [])
    assert ids(consume(broker, take=8)) == [str(number) for number in range(12, 20)]


def test_ws_gets_unicode_as_it_was_sent(broker):
    data = {"number": 1, "name": "Chișinău 🚗👨‍👩‍👧 漢字 \u2028"}
    produce(broker, record(1, data=data, subject="ștampilă"))
    (message,) = consume(broker, take=1)["messages"]
    assert (json.loads(message)["data"], json.loads(message)["subject"]) == (data, "ștampilă")


def test_the_pings_of_ws_are_answered(shared_broker):
    seen = consume(shared_broker, group="ping", ping=True)
    assert (seen["pongs"], seen["code"]) == (["are you there?"], 1000)


def test_ws_is_told_why_its_session_ends(shared_broker):
    seen = consume(shared_broker, group="bad", send=["confirm:7"], wait=True)
    assert seen["code"] == 1008
    assert_clear(seen["reason"], "never sent")


@pytest.mark.parametrize(
    ("client", "protocols", "status", "text"),
    [(None, [SUB_PROTOCOL], 400, "certificate"), ("asp", [SUB_PROTOCOL], 401, "consumer"), ("demo", ["other"], 400, SUB_PROTOCOL)],
    ids=["no_certificate", "not_a_consumer", "other_sub_protocol"],
)
def test_ws_is_refused_with_the_reason(shared_broker, client, protocols, status, text):
    seen = consume(shared_broker, client=client, protocols=protocols)
    assert (seen["status"], seen["contentType"]) == (status, "text/plain; charset=utf-8")
    assert_clear(seen["text"], text)


def test_node_produces_over_one_connection_chunked_or_not(broker):
    requests = []
    for chunked in (False, True):
        event = encode(record(len(requests), partitionkey="k")).decode()
        requests.append({"path": EVENT, "headers": STRUCTURED, "body": event, "chunked": chunked})
    batch = encode([record(2, partitionkey="k"), record(3, partitionkey="k")]).decode()
    requests.append({"path": EVENTS, "headers": BATCH, "body": batch, "chunked": True})
    requests.append({"path": EVENTS, "headers": BATCH, "body": "[{}]", "chunked": True})
    requests.append({"path": EVENTS, "headers": BATCH, "body": "[]", "chunked": False})
    certificate, key = broker.pair("demo")
    sent = run("producer.mjs", {"port": broker.port, "ca": broker.authority, "cert": certificate, "key": key, "requests": requests})
    assert [answer["status"] for answer in sent["answers"]] == [202, 202, 202, 400, 202]
    assert sent["connections"] == 1
    assert ids(consume(broker, take=4)) == ["0", "1", "2", "3"]
