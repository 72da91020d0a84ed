"""Dead events (`dead:` over WebSocket, read with `dead=true`) and test events, over both versions of HTTP."""

import json

import pytest

from broker import PATIENCE
from events import BLOB, RECORD, TEST, assert_refused, assert_stored, raw_headers, record, records
from sessions import confirm, consume, next_event, next_ids, next_message, over_both, post, produce, producer

pytestmark = over_both

ONLY_DEAD = {"events": "false", "test": "false", "dead": "true"}
ONLY_TESTS = {"events": "false", "dead": "false"}


def try_out(broker, identity, client="demo", kind=BLOB, **attributes):
    with producer(broker, client) as session:
        return post(broker, session, TEST, b"a try", raw_headers(identity, "text/plain", kind, **attributes))


def gets_nothing(session):
    """The answer to a ping comes behind everything sent before it."""
    assert session.ping().wait(PATIENCE)
    with pytest.raises(TimeoutError):
        session.recv(timeout=0)


def test_a_reported_event_is_consumed_and_every_group_may_read_it_again(broker):
    produce(broker, records(3, partitionkey="k"))
    with consume(broker) as session:
        reported = next_message(session)
        session.send(f"dead:{reported}")
        assert next_ids(session, 2) == ["1", "2"]
    with consume(broker) as session:
        assert next_ids(session, 2) == ["1", "2"]
    for group in ("one", "other"):
        with consume(broker, group=group, query=ONLY_DEAD) as session:
            event = next_event(session)
            assert event == json.loads(reported)
            confirm(session, event["offset"])
            gets_nothing(session)


def test_what_is_not_an_event_is_kept_word_for_word(broker):
    reports = ["", "not JSON", '{"specversion":"1.0"}', "[1]", '"text"', "ă👋 \u2028 \x01", "x" * 30_000]
    with consume(broker) as session:
        for report in reports:
            session.send(f"dead:{report}")
        with consume(broker, query=ONLY_DEAD) as reader:
            found = [next_event(reader) for _ in reports]
    assert [event["data"] for event in found] == reports
    assert {event["datacontenttype"] for event in found} == {"text/plain"}


def test_other_clients_and_sessions_that_did_not_ask_get_no_dead_events(broker):
    with consume(broker) as session, consume(broker, client="police", query=ONLY_DEAD) as other:
        session.send("dead:mine")
        with consume(broker, query=ONLY_DEAD) as reader:
            assert next_event(reader)["data"] == "mine"
        gets_nothing(session)
        gets_nothing(other)


def test_a_test_event_goes_to_every_instance_of_its_client_at_once_and_to_nobody_else(broker):
    with (
        consume(broker, group="g") as first,
        consume(broker, group="g") as second,
        consume(broker, group="h", query=ONLY_TESTS) as third,
        consume(broker, group="i", query={"test": "false"}) as uninterested,
        consume(broker, client="police") as stranger,
    ):
        assert_stored(try_out(broker, "t1", source="urn:not-mine"))
        for session in (first, second, third):
            event = next_event(session)
            assert (event["id"], event["source"], event["data"]) == ("t1", "urn:not-mine", "a try")
        for session in (uninterested, stranger):
            gets_nothing(session)


def test_a_test_event_is_refused_like_any_other(shared_broker):
    assert_refused(try_out(shared_broker, "1", kind="MS.eCMND.Person.Born"), 401, "MS.eCMND.Person.Born")
    assert_refused(try_out(shared_broker, "1", client="asp"), 401, "consumer")
    assert_refused(try_out(shared_broker, "1", kind=RECORD), 400, "JSON")
    assert_refused(try_out(shared_broker, None), 400, "id")
