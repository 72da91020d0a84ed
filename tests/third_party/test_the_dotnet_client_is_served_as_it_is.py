"""The .NET client library needs what it is used to: chunks, flags written `True`, messages that fit its buffer, a content type in
every event, and errors in plain text."""

import pytest

from dotnet_client import BUFFER_BYTES, DotNetClient, RequestFailed
from events import BLOB, RAW, RECORD, assert_clear, assert_stored, encode, raw_headers, record, records
from sessions import post, producer


def test_it_produces_in_chunks_and_consumes_with_flags_in_its_own_spelling(broker):
    client = DotNetClient(broker)
    client.produce(record(0, partitionkey="k"))
    client.produce_batch([record(number, partitionkey="k") for number in range(1, 40)])
    with client.consume("a group of its own") as session:
        for number in range(40):
            event = session.next()
            assert (event["id"], event["offset"]) == (str(number), str(number + 1))
            session.keep_alive()
        session.confirm(event)
    client.produce(record(40, partitionkey="k"))
    with client.consume("a group of its own") as session:
        assert session.next()["id"] == "40"


def test_nothing_is_discarded_for_want_of_a_content_type(broker):
    """However an event was produced, it comes with the type of its data."""
    client = DotNetClient(broker)
    without_type = record(1, type=BLOB, data={"any": "thing"})
    assert "datacontenttype" not in without_type
    client.produce(without_type)
    client.produce_batch([record(2), record(3, type=BLOB, data="text", datacontenttype="text/plain")])
    client.produce(record(4, type=BLOB, data=None, data_base64="AAEC"))
    with producer(broker) as session:
        assert_stored(post(broker, session, RAW, b'{"number":5,"name":"x"}', raw_headers("5", "application/json", RECORD)))
        assert_stored(post(broker, session, RAW, b"six", raw_headers("6", "text/plain")))
        assert_stored(post(broker, session, RAW, b"\x07", raw_headers("7", "application/octet-stream")))
    with client.consume("g") as consumer:
        found = {event["id"]: event.get("datacontenttype") for event in (consumer.next() for _ in range(7))}
        assert consumer.discarded == 0
    json, text, octets = "application/json", "text/plain", "application/octet-stream"
    assert found == {"1": json, "2": json, "3": text, "4": octets, "5": json, "6": text, "7": octets}


def test_the_largest_event_fits_its_buffer_in_every_session(broker):
    """The limit counts the longest offset there can be."""
    client = DotNetClient(broker)
    room = 60_000
    while True:
        try:
            client.produce(record(1, type=BLOB, data="x" * room))
            room += 500
        except RequestFailed as refused:
            assert str(refused).startswith("413 ")
            break
    assert room > 64_000
    count = (room - 60_000) // 500
    with client.consume("g") as session:
        for _ in range(count):
            session.confirm(session.next())


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"data": {"number": -1, "name": "x"}}, 422, '"/number"'),
        ({"source": "urn:asp"}, 401, "urn:asp"),
        ({"time": "2999-01-01T00:00:00Z"}, 400, "future"),
        ({"data": {"number": 1, "name": "x", "note": "y" * BUFFER_BYTES}}, 413, "65536"),
    ],
    ids=lambda value: value if isinstance(value, int) else "",
)
def test_its_user_sees_what_is_wrong(shared_broker, change, status, text):
    with pytest.raises(RequestFailed) as refused:
        DotNetClient(shared_broker).produce(record(1, **change))
    assert str(refused.value).startswith(f"{status} ")
    assert_clear(str(refused.value), text)


def test_an_event_it_reports_dead_is_consumed_and_found_again(broker):
    client = DotNetClient(broker)
    client.produce_batch([record(number, partitionkey="k") for number in range(3)])
    with client.consume("g") as session:
        first, second = session.next(), session.next()
        session.confirm(first)
        session.report_dead(second)
        session.report_dead("{this is not what it seems")
        assert session.next()["id"] == "2"
    with client.consume("g") as session:
        assert session.next()["id"] == "2", "what was reported dead has been consumed"
    with client.consume("reports", events=False, test=False, dead=True) as session:
        dead = [session.next(), session.next()]
        assert {name: dead[0][name] for name in second if name != "offset"} == {name: second[name] for name in second if name != "offset"}
        assert "{this is not what it seems" in encode(dead[1]).decode()
        assert session.discarded == 0
