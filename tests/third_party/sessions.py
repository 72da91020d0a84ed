"""Consumer sessions with the `websockets` library, and producing with `requests`."""

import json
from contextlib import contextmanager
from urllib.parse import urlencode

import requests
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from broker import PATIENCE
from events import BATCH, EVENT, EVENTS, STRUCTURED, assert_stored, encode

SUB_PROTOCOL = "cloudevents.json"
OPTIONS = {"subprotocols": [SUB_PROTOCOL], "open_timeout": PATIENCE, "close_timeout": PATIENCE}


def address(broker, **query) -> str:
    return broker.websocket_url + ("?" + urlencode(query) if query else "")


def consume(broker, group="g", client="demo", **options):
    """A session of the blocking client, also a context manager."""
    # Without a bound: with its queue full the blocking client reads no more, not even the answer to its close.
    options = {"max_queue": None, "legacy": True, **OPTIONS, **options}
    return connect(address(broker, group=group), ssl=broker.tls(client), proxy=None, **options)


def consume_async(broker, group="g", client="demo", **options):
    """A session of the asyncio client; an asynchronous context manager."""
    return connect_async(address(broker, group=group), ssl=broker.tls(client), proxy=None, **{**OPTIONS, **options})


def next_message(session) -> str:
    message = session.recv(timeout=PATIENCE)
    assert isinstance(message, str), "events are text messages"
    return message


def next_event(session) -> dict:
    return json.loads(next_message(session))


def next_ids(session, count) -> list:
    return [next_event(session)["id"] for _ in range(count)]


def confirm(session, offset):
    session.send(f"confirm:{offset}")


def closing(session):
    """The code and reason with which the broker ends the session."""
    try:
        while True:
            session.recv(timeout=PATIENCE)
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, f"the connection broke without a close frame: {closed}"
        return closed.rcvd.code, closed.rcvd.reason


@contextmanager
def producer(broker, client="demo"):
    """A session of `requests` that shows the client's certificate."""
    with requests.Session() as session:
        session.trust_env = False
        session.verify = broker.authority
        session.cert = broker.pair(client) if client else None
        yield session


def post(broker, session, path, body, headers=None, **options):
    return session.post(broker.url + path, data=body, headers=headers, timeout=PATIENCE, **options)


def produce(broker, events, client="demo"):
    """Stores one event (a dict) or a batch (a list)."""
    with producer(broker, client) as session:
        if isinstance(events, dict):
            assert_stored(post(broker, session, EVENT, encode(events), STRUCTURED))
        else:
            assert_stored(post(broker, session, EVENTS, encode(events), BATCH))
