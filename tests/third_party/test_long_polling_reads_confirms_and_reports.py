"""Consuming by long polling with `requests` and `httpx`: every call, in every form, over both versions of HTTP."""

import threading

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event
from cloudevents.core.formats.json import JSONFormat

from events import BLOB, RAW, assert_refused, assert_stored, raw_headers, record, records
from polling import CONSUMERS, Instance, instance
from sessions import consume, next_ids, over_both, post, produce, producer, send

pytestmark = over_both

SOON = {"polling": {"timeout": '"1s"'}}


def ids(events):
    return [event["id"] for event in events]


def test_each_read_takes_the_next_events_and_a_confirm_moves_the_group_on(make_broker):
    broker = make_broker(**SOON)
    produce(broker, records(6, partitionkey="k"))
    with instance(broker, group="g") as (polling, session), producer(broker) as other:
        assert polling.event(session)["offset"] == "1"
        # Confirms what was read, over any connection, and reads on.
        assert ids([polling.event(other, confirm="true")]) == ["1"]
        assert ids(polling.events(session, confirm="True")) == ["2", "3", "4", "5"]
        polling.confirm(other, offset=4)
        polling.confirm(other, offset=4)
        assert polling.get(session, "event").status_code == 204
        polling.delete(other)
        assert_refused(polling.get(session, "event"), 404)
    with consume(broker) as left:
        assert next_ids(left, 2) == ["4", "5"]


def test_without_an_offset_all_that_was_read_is_confirmed(make_broker):
    broker = make_broker(**SOON)
    produce(broker, records(4, partitionkey="k"))
    with instance(broker, group="g") as (polling, session):
        assert ids(polling.events(session)) == ["0", "1", "2", "3"]
        polling.confirm(session)
        polling.delete(session)
        produce(broker, record(4, partitionkey="k"))
        assert ids(Instance(broker, session, group="g").events(session)) == ["4"]


@pytest.mark.parametrize("what", ["raw", "event", "events"])
def test_without_events_a_poll_waits_and_ends_in_204(make_broker, what):
    broker = make_broker(**SOON)
    with instance(broker) as (polling, session):
        answer = polling.get(session, what)
        assert (answer.status_code, answer.content) == (204, b"")


def test_a_poll_is_answered_as_soon_as_there_is_an_event(broker):
    with instance(broker) as (polling, session):
        found = []
        poll = threading.Thread(target=lambda: found.append(polling.event(session)["id"]))
        poll.start()
        produce(broker, record(1))
        poll.join()
    assert found == ["1"]


def test_raw_answers_are_events_in_binary_mode_for_the_sdk(broker):
    payloads = [
        ("application/json", b'{ "number": 1, "name": "x" }', {"number": 1, "name": "x"}),
        ("text/plain", "ștampilă 👋\n".encode(), "ștampilă 👋\n"),
        ("application/octet-stream", bytes(range(256)), bytes(range(256))),
    ]
    subject = "Chișinău „%” \"x\" 👋"
    with instance(broker) as (polling, session):
        for number, (content_type, body, data) in enumerate(payloads):
            headers = raw_headers(f"ü{number}", content_type, BLOB, subject=subject, partitionkey="k", custom="a b")
            assert_stored(post(broker, session, RAW, body, headers))
            answer = polling.get(session, "raw", confirm="true")
            assert (answer.status_code, answer.content) == (200, body)
            event = from_binary_event(HTTPMessage(dict(answer.headers), answer.content), JSONFormat())
            assert (event.get_id(), event.get_type(), event.get_subject()) == (f"ü{number}", BLOB, subject)
            assert event.get_extension("custom") == "a b"
            assert event.get_extension("offset") == str(number + 1)
            assert event.get_data() == data


def test_what_a_consumer_reports_is_dead_and_can_be_read_as_such(make_broker):
    broker = make_broker(**SOON)
    produce(broker, records(2, partitionkey="k"))
    with instance(broker, group="g") as (polling, session):
        answer = polling.get(session, "raw")
        headers = {name: value for name, value in answer.headers.items() if name.lower().startswith("ce-")}
        headers["Content-Type"] = answer.headers["content-type"]
        assert_stored(polling.report_dead(session, answer.content, {**headers, "ce-reason": "unusable"}))
        polling.delete(session)
        assert ids(Instance(broker, session, group="g").events(session)) == ["1"], "the dead one is consumed"
        dead = Instance(broker, session, group="dead", events="false", test="false", dead="True")
        (event,) = dead.events(session)
        assert (event["id"], event["reason"], event["data"]) == ("0", "unusable", record(0)["data"])


def test_an_instance_is_nobody_elses(shared_broker):
    with instance(shared_broker) as (polling, session), producer(shared_broker, "police") as other:
        for method, what in [("GET", "/raw"), ("GET", "/event"), ("GET", "/events"), ("POST", "/confirm"), ("DELETE", "")]:
            assert_refused(send(shared_broker, other, method, polling.path + what), 404)
        for path in (polling.path[:-1] + "x", polling.path.replace("/instances/", "/instances/x")):
            assert_refused(send(shared_broker, session, "GET", path + "/event"), 404)
        polling.delete(session)


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("POST", "?colour=red", 400, "colour"),
        ("POST", "?group=", 400, "group"),
        ("POST", "?events=perhaps", 400, "events"),
        ("GET", "", 405, "POST"),
    ],
)
def test_an_instance_that_cannot_be_is_refused_with_the_reason(shared_broker, method, path, status, text):
    with producer(shared_broker) as session:
        assert_refused(send(shared_broker, session, method, CONSUMERS + path), status, text)


def test_who_is_no_consumer_gets_no_instance(shared_broker):
    with producer(shared_broker, "asp") as session:
        assert_refused(send(shared_broker, session, "POST", CONSUMERS), 401, "consumer")


def test_an_offset_that_was_never_read_is_refused(shared_broker):
    with instance(shared_broker, group="offsets") as (polling, session):
        for offset in ("1000000", "x", "-1", ""):
            answer = send(shared_broker, session, "POST", f"{polling.path}/confirm", params={"offset": offset})
            assert_refused(answer, 400, "offset")
        polling.delete(session)


def test_an_instance_that_nobody_polls_expires_and_frees_its_partitions(make_broker):
    broker = make_broker(polling={"timeout": '"1s"', "instance_timeout": '"2s"'})
    produce(broker, records(24))
    with instance(broker, group="g") as (polling, session), consume(broker) as heir:
        assert len(set(next_ids(heir, 24))) == 24
        assert_refused(polling.get(session, "event"), 404)
