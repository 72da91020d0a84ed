"""The CloudEvents SDK of PyPI, its present and its first generation: binary, structured and batch form in,
WebSocket messages out, each form read by each generation."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from cloudevents.core.bindings import http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1 import conversion as first
from cloudevents.v1.http import CloudEvent as FirstCloudEvent
from cloudevents.v1.http import from_json as first_from_json

from events import BATCH, BLOB, EVENT, EVENTS, RAW, RECORD, assert_stored
from sessions import consume, next_message, over_both, post, producer

pytestmark = over_both

TIME = datetime(2024, 2, 29, 12, 30, 45, 123456, timezone(timedelta(hours=2)))

PAYLOADS = {
    "json": ("application/json", RECORD, {"number": 1, "name": "Ștefan 🚗", "more": [1, 2.5, None, True, {"a": {}}]}),
    "text": ("text/plain", BLOB, "bună ziua 👋\nrândul doi"),
    "bytes": ("application/octet-stream", BLOB, bytes(range(256))),
}


def attributes(identity, kind, content_type):
    return {
        "specversion": "1.0",
        "id": identity,
        "source": "urn:demo",
        "type": kind,
        "subject": "a subject",
        "datacontenttype": content_type,
        "partitionkey": "k",
        "traceid": "0af7651916cd43dd",
    }


def present(identity, payload):
    content_type, kind, data = PAYLOADS[payload]
    return CloudEvent({**attributes(identity, kind, content_type), "time": TIME}, data)


def of_the_first(identity, payload):
    content_type, kind, data = PAYLOADS[payload]
    return FirstCloudEvent({**attributes(identity, kind, content_type), "time": TIME.isoformat()}, data)


def to_binary(event):
    message = http.to_binary_event(event)
    return message.headers, message.body


def to_structured(event):
    message = http.to_structured_event(event)
    return message.headers, message.body


def first_to_binary(event):
    marshal = None if isinstance(event.data, dict) else lambda data: data
    return first.to_binary(event, marshal)


WRITERS = {
    "present_binary": (present, RAW, to_binary),
    "present_structured": (present, EVENT, to_structured),
    "first_binary": (of_the_first, RAW, first_to_binary),
    "first_structured": (of_the_first, EVENT, first.to_structured),
}


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("writer", WRITERS)
def test_an_event_comes_back_as_it_was_sent(broker, writer, payload):
    make, path, write = WRITERS[writer]
    headers, body = write(make(writer, payload))
    with producer(broker) as session:
        assert_stored(post(broker, session, path, body, headers))
    with consume(broker) as consumer:
        assert_same(next_message(consumer), writer, payload)


@pytest.mark.parametrize("make", [present, of_the_first])
def test_a_batch_of_all_payloads_comes_back_as_it_was_sent(broker, make):
    """The SDK writes no batches; a batch is the JSON array of its structured events."""
    write = to_structured if make is present else first.to_structured
    bodies = [write(make(payload, payload))[1] for payload in PAYLOADS]
    with producer(broker) as session:
        assert_stored(post(broker, session, EVENTS, b"[" + b",".join(bodies) + b"]", BATCH))
    with consume(broker) as consumer:
        for payload in PAYLOADS:
            assert_same(next_message(consumer), payload, payload)


def test_what_the_sdk_makes_up_is_taken(broker):
    event = CloudEvent({"type": BLOB, "source": "urn:demo"}, {"a": 1})
    headers, body = to_binary(event)
    assert "content-type" not in {name.lower() for name in headers}, "the SDK names no content type by itself"
    with producer(broker) as session:
        assert_stored(post(broker, session, RAW, body, {**headers, "Content-Type": "application/json"}))
        headers, body = to_structured(event)
        assert_stored(post(broker, session, EVENT, body, headers))
    with consume(broker) as consumer:
        for _ in range(2):
            delivered = JSONFormat().read(None, next_message(consumer))
            assert (delivered.get_id(), delivered.get_time()) == (event.get_id(), event.get_time())
            assert (delivered.get_data(), delivered.get_datacontenttype()) == ({"a": 1}, "application/json")


def assert_same(message, identity, payload):
    """Both generations of the SDK understand the delivered message and find what was sent."""
    content_type, kind, data = PAYLOADS[payload]
    expected = attributes(identity, kind, content_type)

    delivered = JSONFormat().read(None, message)
    found = dict(delivered.get_attributes())
    assert found.pop("time") == TIME
    assert found.pop("offset").isdigit()
    assert found == expected
    assert delivered.get_data() == data

    by_the_first = first_from_json(message, data_unmarshaller=unmarshal)
    assert datetime.fromisoformat(by_the_first["time"].replace("Z", "+00:00")) == TIME
    assert {name: by_the_first[name] for name in expected} == expected
    assert by_the_first.data == data


def unmarshal(data):
    """The first generation hands over JSON text of `data`, or the bytes of `data_base64`."""
    return data if isinstance(data, bytes) else json.loads(data)
