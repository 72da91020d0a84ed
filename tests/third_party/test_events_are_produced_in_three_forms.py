"""`requests`, `httpx` and `aiohttp` produce single events and batches, with a length or in chunks."""

import asyncio

import aiohttp
import httpx
import pytest
import requests

from broker import PATIENCE
from events import BATCH, EVENT, EVENTS, RAW, RECORD, STRUCTURED, encode, raw_headers, record, records
from sessions import consume, next_ids


def produced_by_requests(broker, path, headers, body, chunked):
    if chunked:
        body = iter(pieces(body))
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(
            broker.url + path, data=body, headers=headers, cert=broker.pair("demo"), verify=broker.authority, timeout=PATIENCE
        )
    sent = answer.request.headers
    return answer.status_code, answer.content, sent.get("Transfer-Encoding") == "chunked"


def produced_by_httpx(broker, path, headers, body, chunked):
    content = iter(pieces(body)) if chunked else body
    with httpx.Client(verify=broker.tls(), trust_env=False, timeout=PATIENCE) as client:
        answer = client.post(broker.url + path, content=content, headers=headers)
    return answer.status_code, answer.content, answer.request.headers.get("Transfer-Encoding") == "chunked"


def produced_by_aiohttp(broker, path, headers, body, chunked):
    async def slices():
        for piece in pieces(body):
            yield piece

    async def send():
        connector = aiohttp.TCPConnector(ssl=broker.tls())
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(PATIENCE)) as session:
            data = slices() if chunked else body
            async with session.post(broker.url + path, data=data, headers=headers) as answer:
                in_chunks = answer.request_info.headers.get("Transfer-Encoding") == "chunked"
                return answer.status, await answer.read(), in_chunks

    return asyncio.run(send())


def pieces(body):
    """Pieces of uneven sizes, some of one byte."""
    sizes = [1, 7, 1, 64, 3]
    at = 0
    while at < len(body):
        size = sizes[at % len(sizes)]
        yield body[at : at + size]
        at += size


CLIENTS = [produced_by_requests, produced_by_httpx, produced_by_aiohttp]

FORMS = [
    ("raw", RAW, lambda i: raw_headers(i, "application/json", RECORD), lambda i: b'{"number":1,"name":"x"}'),
    ("event", EVENT, lambda i: STRUCTURED, lambda i: encode(record(1, id=i))),
    ("batch", EVENTS, lambda i: BATCH, lambda i: encode([record(1, id=i)])),
]


def test_every_client_produces_every_form_with_a_length_and_in_chunks(broker):
    expected = []
    for client in CLIENTS:
        for name, path, headers, body in FORMS:
            for chunked in (False, True):
                identity = f"{client.__name__}-{name}-{chunked}"
                status, content, sent_in_chunks = client(broker, path, headers(identity), body(identity), chunked)
                assert (status, content, sent_in_chunks) == (202, b"", chunked), identity
                expected.append(identity)
    with consume(broker) as session:
        assert sorted(next_ids(session, len(expected))) == sorted(expected)


def test_the_events_of_a_batch_keep_their_order_within_a_key(broker):
    batch = records(300, partitionkey="one")
    status, _, _ = produced_by_httpx(broker, EVENTS, BATCH, encode(batch), chunked=True)
    assert status == 202
    with consume(broker) as session:
        assert next_ids(session, 300) == [str(number) for number in range(300)]


def test_an_empty_batch_is_taken_and_means_nothing(shared_broker):
    for client in CLIENTS:
        status, content, _ = client(shared_broker, EVENTS, BATCH, b"[]", False)
        assert (status, content) == (202, b"")


def test_of_a_batch_with_one_bad_event_nothing_is_ever_delivered(broker):
    bad = [record(0), record(1, data={"number": "one", "name": "x"}), record(2)]
    assert produced_by_requests(broker, EVENTS, BATCH, encode(bad), False)[0] == 422
    assert produced_by_requests(broker, EVENT, STRUCTURED, encode(record(9)), False)[0] == 202
    with consume(broker) as session:
        assert next_ids(session, 1) == ["9"]


def test_a_repeat_is_an_event_of_its_own_unless_its_type_asks_for_deduplication(broker):
    for _ in range(3):
        assert produced_by_requests(broker, EVENT, STRUCTURED, encode(record(1)), False)[0] == 202
    with consume(broker) as session:
        assert next_ids(session, 3) == ["1", "1", "1"]


def test_with_deduplication_a_repeat_is_answered_202_and_stored_once(broker):
    broker.stop()
    kind = broker.directory / "registry" / "types" / "Demo.Load.Blob.Created.toml"
    kind.write_text(kind.read_text() + '\ndeduplicate_for = "10m"\n')
    broker.start()
    for identity in ("a", "a", "a", "b"):
        headers = raw_headers(identity, "text/plain", partitionkey="k")
        assert produced_by_requests(broker, RAW, headers, b"x", False)[0] == 202
    with consume(broker) as session:
        assert next_ids(session, 2) == ["a", "b"]


@pytest.mark.parametrize("kind", ["application/cloudevents+json", "Application/CloudEvents+JSON ; Charset=UTF-8"])
def test_content_types_are_compared_as_media_types(shared_broker, kind):
    status, content, _ = produced_by_httpx(shared_broker, EVENT, {"Content-Type": kind}, encode(record(1)), False)
    assert (status, content) == (202, b"")
