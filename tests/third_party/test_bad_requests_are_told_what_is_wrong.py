"""Every refusal has its status and a text that a developer can act on, plain or as problem details."""

import json

import pytest

from broker import HTTP_2
from events import (
    BATCH,
    BLOB,
    EVENT,
    EVENTS,
    RAW,
    RECORD,
    STRUCTURED,
    assert_clear,
    assert_refused,
    encode,
    raw_headers,
    record,
)
from sessions import over_both, post, producer, send

pytestmark = over_both

GOOD_DATA = b'{"number":1,"name":"x"}'

SINGLE = {
    "body_not_json": (b"{nope", 400, ["JSON"]),
    "body_empty": (b"", 400, []),
    "an_array": (b"[]", 400, ["object"]),
    "trailing_bytes": (encode(record(1)) + b" x", 400, []),
    "invalid_utf8": (encode(record(1)).replace(b"n1", b"\xff\xfe"), 400, ["UTF-8"]),
    "doubled_member": (encode(record(1)).replace(b'{"spec', b'{"id":"2","spec', 1), 400, ["id"]),
    "no_id": (encode(record(1, id=None)), 400, ["id"]),
    "empty_id": (encode(record(1, id="")), 400, ["id", "empty"]),
    "no_source": (encode(record(1, source=None)), 400, ["source"]),
    "no_type": (encode(record(1, type=None)), 400, ["type"]),
    "no_version": (encode(record(1, specversion=None)), 400, ["specversion"]),
    "old_version": (encode(record(1, specversion="0.3")), 400, ["specversion", "1.0"]),
    "offset_is_reserved": (encode(record(1, offset="1")), 400, ["offset", "reserved"]),
    "bad_attribute_name": (encode(record(1, bad_name="x")), 400, ["bad_name"]),
    "attribute_not_a_scalar": (encode(record(1, subject={"a": 1})), 400, ["subject"]),
    "time_not_a_time": (encode(record(1, time="yesterday")), 400, ["time", "RFC 3339"]),
    "time_in_the_future": (encode(record(1, time="2999-01-01T00:00:00Z")), 400, ["time", "future"]),
    "both_kinds_of_data": (encode(record(1, data_base64="AA==")), 400, ["data_base64"]),
    "bad_base64": (encode(record(1, type=BLOB, data=None, data_base64="?")), 400, ["data_base64"]),
    "foreign_source": (encode(record(1, source="urn:asp")), 401, ["source", "urn:asp", "urn:demo"]),
    "foreign_type": (encode(record(1, type="ASP.RST.VP.Invalidated")), 401, ["ASP.RST.VP.Invalidated"]),
    "unknown_type": (encode(record(1, type="No.Such.Type.Here")), 401, ["No.Such.Type.Here"]),
    "against_the_schema": (encode(record(1, data={"number": -1, "name": ""})), 422, ['"/number"', '"/name"']),
    "schema_but_no_data": (encode(record(1, data=None)), 422, ["data", "schema"]),
    "text_where_a_schema_is": (encode(record(1, datacontenttype="text/plain", data="x")), 400, ["JSON"]),
    "over_the_event_limit": (encode(record(1, data={"number": 1, "name": "x", "note": "y" * 66_000})), 413, ["65536"]),
    "over_the_request_limit": (b" " * (1 << 20) + encode(record(1)), 413, ["1048576"]),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_bad_event_is_refused_with_its_reason(shared_broker, name):
    body, status, texts = SINGLE[name]
    with producer(shared_broker) as session:
        assert_refused(post(shared_broker, session, EVENT, body, STRUCTURED), status, *texts)


RAW_HEADERS = {
    "no_id": (raw_headers(None, "application/json", RECORD), 400, ["id"]),
    "no_content_type": (raw_headers("1", None, RECORD), 400, ["Content-Type"]),
    "other_content_type": (raw_headers("1", "image/png", RECORD), 400, ["Content-Type", "application/octet-stream"]),
    "other_charset": (raw_headers("1", "text/plain; charset=latin1", BLOB), 400, ["charset", "utf-8"]),
    "bad_percent_encoding": ({**raw_headers("1", "application/json", RECORD), "ce-subject": "%G0"}, 400, ["subject"]),
    "not_utf8": ({**raw_headers("1", "application/json", RECORD), "ce-subject": "%FF"}, 400, ["subject", "UTF-8"]),
    "data_header": ({**raw_headers("1", "application/json", RECORD), "ce-data": "x"}, 400, ["data", "body"]),
    "offset_header": ({**raw_headers("1", "application/json", RECORD), "ce-offset": "1"}, 400, ["offset"]),
    "text_for_a_schema": (raw_headers("1", "text/plain", RECORD), 400, ["JSON"]),
}


@pytest.mark.parametrize("name", RAW_HEADERS)
def test_a_bad_event_in_headers_is_refused_with_its_reason(shared_broker, name):
    headers, status, texts = RAW_HEADERS[name]
    with producer(shared_broker) as session:
        assert_refused(post(shared_broker, session, RAW, GOOD_DATA, headers), status, *texts)


@pytest.mark.parametrize(
    ("path", "headers"),
    [(EVENT, BATCH), (EVENT, {"Content-Type": "application/json"}), (EVENTS, STRUCTURED), (RAW, STRUCTURED)],
)
def test_each_endpoint_takes_only_its_content_type(shared_broker, path, headers):
    with producer(shared_broker) as session:
        assert_refused(post(shared_broker, session, path, b"[]", headers), 400, "Content-Type", "must be application/")


def test_a_batch_names_every_bad_event(shared_broker):
    batch = [
        record(0),
        record(1, id="ünü", data={"number": 1}),
        record(2, time="soon"),
        record(3, source="urn:other"),
    ]
    with producer(shared_broker) as session:
        answer = post(shared_broker, session, EVENTS, encode(batch), BATCH)
    assert_refused(answer, 400, 'event 1, id "ünü"', '"name"', 'event 2, id "2"', "time", 'event 3, id "3"', "urn:other")
    assert "event 0" not in answer.text


def test_a_batch_must_not_hold_the_same_event_twice(shared_broker):
    with producer(shared_broker) as session:
        answer = post(shared_broker, session, EVENTS, encode([record(1), record(2), record(1)]), BATCH)
    assert_refused(answer, 400, 'event 2, id "1"')


def test_problem_details_carry_the_same_for_programs(shared_broker):
    headers = {**BATCH, "Accept": "application/problem+json"}
    batch = [record(0), record(1, data={"number": "x", "name": "y"}), record(2, time="soon")]
    with producer(shared_broker) as session:
        answer = post(shared_broker, session, EVENTS, encode(batch), headers)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    problem = answer.json()
    assert (problem["status"], problem["title"]) == (400, "Bad Request")
    assert_clear(problem["detail"])
    schema, time = problem["errors"]
    assert (schema["event"], schema["id"], schema["pointer"], schema["status"]) == (1, "1", "/number", 422)
    assert (time["event"], time["id"], time["attribute"], time["status"]) == (2, "2", "time", 400)
    assert_clear(schema["detail"]), assert_clear(time["detail"], "RFC 3339")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 404),
        ("POST", "/ce/produce/nothing", b"{}", 404),
        ("GET", EVENT, None, 405),
        ("PUT", EVENT, b"{}", 405),
        ("GET", "/ce/consume/ws", None, 426),
        ("POST", EVENT, b"x" * 1_100_000, 413),
        ("POST", EVENT + "?colour=red", b"{}", 400),
        ("GET", "/ce/consume/ws?group=", None, 426),
    ],
)
@pytest.mark.parametrize("accept", [None, "application/problem+json"], ids=["plain", "problem"])
def test_requests_that_lead_nowhere_are_answered_in_the_form_asked_for(shared_broker, method, path, body, status, accept):
    headers = {**STRUCTURED, **({"Accept": accept} if accept else {})}
    with producer(shared_broker) as session:
        answer = send(shared_broker, session, method, path, body, headers)
    if status == 426 and shared_broker.protocol == HTTP_2:
        status = 405  # nothing is upgraded there: the method of a WebSocket is CONNECT
    assert answer.status_code == status
    if accept:
        assert answer.headers["content-type"] == accept
        problem = json.loads(answer.content)
        assert problem["status"] == status
        assert_clear(problem["detail"])
    else:
        assert_refused(answer, status)
    if status == 405:
        assert answer.headers["allow"] == ("CONNECT" if "/ws" in path else "POST")
    if status == 426:
        assert answer.headers["upgrade"] == "websocket"
