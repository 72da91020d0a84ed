"""Consumer sessions with the `websockets` library and producing with `requests`, or, where a test runs over HTTP/2, with
`h2` and `wsproto`, and with `httpx`."""

import json
from contextlib import contextmanager
from urllib.parse import urlencode

import httpx
import pytest
import requests
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from broker import HTTP_1_1, HTTP_2, PATIENCE
from events import BATCH, EVENT, EVENTS, STRUCTURED, assert_stored, encode
from http2_sessions import Http2Session

SUB_PROTOCOL = "cloudevents.json"
# Marks tests and modules that run with clients of either version of HTTP.
over_both = pytest.mark.parametrize("protocol", [HTTP_1_1, HTTP_2], indirect=True)
OPTIONS = {"subprotocols": [SUB_PROTOCOL], "open_timeout": PATIENCE, "close_timeout": PATIENCE}


def path(**query) -> str:
    return "/ce/consume/ws" + ("?" + urlencode(query) if query else "")


def address(broker, **query) -> str:
    return f"wss://localhost:{broker.port}{path(**query)}"


def consume(broker, group="g", client="demo", query=None, **options):
    """A blocking session, also a context manager. `query` adds to what asks for the group."""
    query = {**({} if group is None else {"group": group}), **(query or {})}
    if broker.protocol == HTTP_2:
        return Http2Session(broker, path(**query), options.pop("subprotocols", [SUB_PROTOCOL]), client, **options)
    # Without a bound: with its queue full the blocking client reads no more, not even the answer to its close.
    options = {"max_queue": None, "legacy": True, **OPTIONS, **options}
    return connect(address(broker, **query), ssl=broker.tls(client), proxy=None, **options)


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
    """A session of `requests` or `httpx` that shows the certificate of `client`."""
    if broker.protocol == HTTP_2:
        # It negotiates by ALPN and offers nothing else.
        with httpx.Client(verify=broker.tls(client), http1=False, http2=True, trust_env=False, timeout=PATIENCE) as session:
            yield session
    else:
        with requests.Session() as session:
            session.trust_env = False
            session.verify = broker.authority
            session.cert = broker.pair(client) if client else None
            yield session


def send(broker, session, method, path, body=None, headers=None, **options):
    """The answer to a request of any method."""
    if isinstance(session, httpx.Client):
        answer = session.request(method, broker.url + path, content=body, headers=headers, **options)
        assert answer.http_version == HTTP_2
        return answer
    return session.request(method, broker.url + path, data=body, headers=headers, timeout=PATIENCE, **options)


def post(broker, session, path, body, headers=None, **options):
    return send(broker, session, "POST", path, body, headers, **options)


def produce(broker, events, client="demo"):
    """Stores one event (a dict) or a batch (a list)."""
    with producer(broker, client) as session:
        if isinstance(events, dict):
            assert_stored(post(broker, session, EVENT, encode(events), STRUCTURED))
        else:
            assert_stored(post(broker, session, EVENTS, encode(events), BATCH))
