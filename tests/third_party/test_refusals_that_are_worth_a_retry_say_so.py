"""429 and 503, over both versions of HTTP, say after how many seconds to come again."""

import os
import shutil
import threading

from broker import PATIENCE, wait_until
from events import BATCH, EVENT, EVENTS, STRUCTURED, assert_refused, assert_stored, encode, record, records
from polling import instance
from sessions import over_both, post, producer

pytestmark = over_both

GIB = 1 << 30


def limit(broker, limits):
    """Starts the broker anew with limits for its client `demo`."""
    broker.stop()
    file = broker.directory / "registry" / "clients" / "demo.toml"
    file.write_text(f"{file.read_text()}\n[limits]\n{limits}\n")
    broker.start()


def assert_asked_to_wait(answer, status, *texts):
    assert_refused(answer, status, *texts)
    assert int(answer.headers["retry-after"]) > 0


def test_a_client_over_its_rate_is_told_when_to_come_again(broker):
    limit(broker, "events_per_second_max = 1")
    with producer(broker) as session:
        assert_stored(post(broker, session, EVENTS, encode(records(600)), BATCH))
        answer = post(broker, session, EVENT, encode(record(1)), STRUCTURED)
        assert_asked_to_wait(answer, 429, "events_per_second_max")
        problem = post(broker, session, EVENT, encode(record(1)), {**STRUCTURED, "Accept": "application/problem+json"})
        assert (problem.status_code, problem.headers["content-type"]) == (429, "application/problem+json")
        assert problem.json()["status"] == 429


def test_a_client_with_too_many_connections_is_told_so_on_the_next_one(broker):
    limit(broker, "connections_max = 1")
    with producer(broker) as first, producer(broker) as second:
        assert_stored(post(broker, first, EVENT, encode(record(1)), STRUCTURED))
        assert_asked_to_wait(post(broker, second, EVENT, encode(record(2)), STRUCTURED), 429, "connections_max")
        assert_stored(post(broker, first, EVENT, encode(record(3)), STRUCTURED))


def test_a_broker_whose_disk_is_nearly_full_takes_no_events(make_broker, tmp_path):
    free = shutil.disk_usage(tmp_path).free
    broker = make_broker(storage={"min_free_bytes": f'"{(free - 2 * GIB) >> 20} MiB"'})
    with producer(broker) as session:
        assert_stored(post(broker, session, EVENT, encode(record(1)), STRUCTURED))
        with open(broker.directory / "filler", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, 4 * GIB)
        wait_until("the disk to be found full", lambda: "nearly full" in broker.log())
        assert_asked_to_wait(post(broker, session, EVENT, encode(record(2)), STRUCTURED), 503, "storage is full")


def test_a_poll_of_a_broker_that_stops_is_answered_at_once(broker):
    with instance(broker) as (polling, session):
        answers = []
        poll = threading.Thread(target=lambda: answers.append(polling.get(session, "event")))
        poll.start()
        wait_until("the poll to wait", lambda: broker.metric("polls_waiting") == 1)
        broker.ask_to_stop()
        poll.join(PATIENCE)
        assert_asked_to_wait(answers[0], 503)
