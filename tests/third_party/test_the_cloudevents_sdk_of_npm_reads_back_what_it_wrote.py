"""The CloudEvents SDK of npm: binary, structured and batch form in, WebSocket messages out."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from broker import PATIENCE
from events import BATCH, BLOB, EVENT, EVENTS, RAW, RECORD, STRUCTURED, assert_stored
from sessions import consume, next_message, over_both, post, producer

pytestmark = over_both

HERE = Path(__file__).resolve().parent / "node"
OCTETS = base64.b64encode(bytes(range(256))).decode()
PAYLOADS = [
    ("application/json", RECORD, {"json": {"number": 1, "name": "Ștefan 🚗", "more": [1, 2.5, None, True]}}),
    ("text/plain", BLOB, {"text": "bună ziua 👋\nrândul doi"}),
    ("application/octet-stream", BLOB, {"bytes": OCTETS}),
]


@pytest.fixture(autouse=True, scope="module")
def node():
    if shutil.which("node") is None:
        pytest.skip("node is not installed")


def sdk(**orders):
    done = subprocess.run(
        ["node", HERE / "cloudevents.mjs", json.dumps(orders)], capture_output=True, text=True, timeout=PATIENCE, cwd=HERE
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def attributes(identity, kind, content_type):
    return {
        "specversion": "1.0",
        "id": identity,
        "source": "urn:demo",
        "type": kind,
        "subject": "a subject",
        "time": "2024-02-29T12:30:45.123Z",
        "datacontenttype": content_type,
        "partitionkey": "k",
    }


def test_events_in_every_form_come_back_as_they_were_sent(broker):
    expected = [attributes(str(number), kind, content_type) for number, (content_type, kind, _) in enumerate(PAYLOADS)]
    written = sdk(write=[{"attributes": event, **payload} for event, (_, _, payload) in zip(expected, PAYLOADS)])
    with producer(broker) as session:
        for event in written:
            body = base64.b64decode(event["binary"]["body"])
            assert_stored(post(broker, session, RAW, body, event["binary"]["headers"]))
        for event in written:
            body = base64.b64decode(event["structured"]["body"])
            assert_stored(post(broker, session, EVENT, body, event["structured"]["headers"]))
        batch = b"[" + b",".join(base64.b64decode(event["structured"]["body"]) for event in written) + b"]"
        assert_stored(post(broker, session, EVENTS, batch, BATCH))
    with consume(broker) as consumer:
        messages = [next_message(consumer) for _ in range(9)]
    single = {"content-type": STRUCTURED["Content-Type"]}
    delivered = [{"headers": single, "body": base64.b64encode(message.encode()).decode()} for message in messages]
    for found, (event, (_, _, payload)) in zip(sdk(read=delivered), list(zip(expected, PAYLOADS)) * 3):
        assert found["attributes"].pop("offset").isdigit()
        assert found["attributes"] == event
        (kind, data), = payload.items()
        assert found["data"] == ({"base64": data} if kind == "bytes" else data)
