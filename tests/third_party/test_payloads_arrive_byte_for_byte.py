"""What was produced is what is delivered: JSON text, Unicode, text, bytes, attributes, sizes up to the limit."""

import base64
import json
import random

import pytest

from events import BLOB, EVENT, EVENTS, BATCH, RAW, RECORD, STRUCTURED, assert_stored, data_of, encode, raw_headers, record, without_offset
from sessions import consume, next_event, next_message, over_both, post, produce, producer

pytestmark = over_both

# Largest message at the default event limit. The longest possible offset has 20 digits, the first one has 1.
MESSAGE_BYTES_MAX = 65_536
FIRST_MESSAGE_BYTES_MAX = MESSAGE_BYTES_MAX - 19

TEXT = "Chișinău – „ghilimele” – 🚗👨‍👩‍👧 – العربية – 漢字 – a\u0301 – \u2028 – \\ \" \t end"

JSON_TEXTS = [
    '{"number":1,"name":"x"}',
    '{ "number" : 1 ,\r\n\t"name" : "x" }',
    '{"number":1,"name":"\\u0103\\ud83d\\ude97\\/\\u0000"}',
    '{"number":1,"name":"ă🚗/"}',
    '{"number":1.0,"name":"x","a":1e400,"b":-0,"c":0.10000000000000000000000000000000000001,"d":1E+2}',
    '{"number":12345678901234567890123,"name":"x"}',
    '{"name":"x","number":1,"note":"","":{"":[]},"data":"\\",\\"offset\\":\\"9","offset":"5"}',
    '{"number":1,"name":"x","deep":' + "[" * 50 + "]" * 50 + "}",
]


@pytest.mark.parametrize("form", ["raw", "event", "batch"])
def test_json_is_delivered_exactly_as_it_was_written(broker, form):
    with producer(broker) as session, consume(broker) as consumer:
        for number, text in enumerate(JSON_TEXTS):
            identity = str(number)
            start = encode({name: value for name, value in record(0, id=identity, data=None).items()})[:-1].decode()
            event = f'{start} , "data" : {text}}}'.encode()
            if form == "raw":
                assert_stored(post(broker, session, RAW, text.encode(), raw_headers(identity, "application/json", RECORD)))
            elif form == "event":
                assert_stored(post(broker, session, EVENT, event, STRUCTURED))
            else:
                assert_stored(post(broker, session, EVENTS, b" [ " + event + b" ] ", BATCH))
            message = next_message(consumer)
            assert json.loads(message)["id"] == identity
            assert json.loads(message)["datacontenttype"] == "application/json"
            assert data_of(message) == text


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "text", "", [], [1, [2]], {}, {"a": None}])
def test_data_may_be_any_json_value(broker, value):
    produce(broker, encode_blob(value))
    with consume(broker) as consumer:
        event = next_event(consumer)
        assert "data" in event and event["data"] == value
        assert event["datacontenttype"] == "application/json"


def encode_blob(value):
    return record(1, type=BLOB, data=None) | {"data": value}


@pytest.mark.parametrize("text", ["", "plain", TEXT, "\x00\x01\x1f\x7f", '{"looks": "like JSON"}'])
def test_text_is_delivered_as_a_json_string(broker, text):
    with producer(broker) as session:
        headers = raw_headers("raw", "text/plain; charset=utf-8", partitionkey="k")
        assert_stored(post(broker, session, RAW, text.encode(), headers))
    produce(broker, record("structured", type=BLOB, partitionkey="k", datacontenttype="text/plain", data=text))
    with consume(broker) as consumer:
        for identity in ("raw", "structured"):
            event = next_event(consumer)
            assert (event["id"], event["data"]) == (identity, text)
            assert event["datacontenttype"].startswith("text/plain")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 256, 40_000])
def test_bytes_are_delivered_in_base64(broker, size):
    content = random.Random(size).randbytes(size) if size != 256 else bytes(range(256))
    with producer(broker) as session:
        headers = raw_headers("raw", "application/octet-stream", partitionkey="k")
        assert_stored(post(broker, session, RAW, content, headers))
    encoded = base64.b64encode(content).decode()
    structured = record("structured", type=BLOB, partitionkey="k", data=None, data_base64=encoded)
    produce(broker, structured | {"datacontenttype": "image/png"})
    with consume(broker) as consumer:
        for identity, kind in (("raw", "application/octet-stream"), ("structured", "image/png")):
            event = next_event(consumer)
            assert "data" not in event
            assert (event["id"], event["datacontenttype"]) == (identity, kind)
            assert base64.b64decode(event["data_base64"], validate=True) == content


def test_unicode_attributes_survive_headers_and_json(broker):
    subject = "Chișinău 100% „da” \"nu\" 🚗 漢字"
    with producer(broker) as session:
        headers = raw_headers("ă🚗", "application/json", RECORD, subject=subject, partitionkey="cheie ș")
        assert_stored(post(broker, session, RAW, b'{"number":1,"name":"x"}', headers))
    produce(broker, record(1, id="ă🚗", subject=subject, partitionkey="cheie ș"))
    with consume(broker) as consumer:
        for event in (next_event(consumer), next_event(consumer)):
            assert (event["id"], event["subject"], event["partitionkey"]) == ("ă🚗", subject, "cheie ș")


def test_attributes_of_every_kind_are_delivered_untouched(broker):
    event = record(
        1,
        time="2020-02-29T23:59:59.123456789+03:00",
        subject="s",
        dataschema="https://example.md/schema#1",
        datacontenttype="application/json; charset=utf-8",
        partitionkey="k",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        flag=True,
        off=False,
        least=-2147483648,
        most=2147483647,
    )
    produce(broker, event)
    with consume(broker) as consumer:
        assert without_offset(next_message(consumer)) == event


def test_an_event_without_data_or_time_gets_only_a_time(broker):
    event = record(1, type=BLOB, data=None)
    produce(broker, event)
    with consume(broker) as consumer:
        delivered = without_offset(next_message(consumer))
        assert delivered.pop("time").endswith("Z")
        assert delivered == event


def test_every_event_is_one_frame_and_the_largest_fits_the_smallest_client(broker):
    def padded(number, length):
        return record(1, id=str(number), time="2020-01-01T00:00:00Z", data={"number": 1, "name": "x", "note": "y" * length})

    produce(broker, padded(1, 0))
    with consume(broker, group="measure") as consumer:
        room = FIRST_MESSAGE_BYTES_MAX - len(next_message(consumer).encode())
    with producer(broker) as session:
        too_long = post(broker, session, EVENT, encode(padded(2, room + 1)), STRUCTURED)
        assert too_long.status_code == 413
        assert_stored(post(broker, session, EVENT, encode(padded(3, room)), STRUCTURED))
    with consume(broker, max_size=MESSAGE_BYTES_MAX) as consumer:
        lengths = []
        for _ in range(2):
            frames = list(consumer.recv_streaming())
            assert len(frames) == 1, "an event came in several frames"
            lengths.append(len(frames[0].encode()))
    assert max(lengths) == FIRST_MESSAGE_BYTES_MAX
