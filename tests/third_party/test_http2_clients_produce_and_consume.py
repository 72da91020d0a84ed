"""HTTP/2 with `curl`, `httpx`, and `h2` with `wsproto` for WebSocket by extended CONNECT (RFC 8441)."""

import asyncio
import json
import shutil
import socket
import subprocess

import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Ping, TextMessage

from broker import PATIENCE
from events import BATCH, EVENT, EVENTS, RAW, RECORD, STRUCTURED, assert_clear, assert_stored, encode, raw_headers, record
from sessions import SUB_PROTOCOL, consume, next_ids, produce

WEB_SOCKET = [("sec-websocket-version", "13"), ("sec-websocket-protocol", SUB_PROTOCOL)]


def http2(broker, client="demo", **options):
    """A client of `httpx` that speaks HTTP/2."""
    return httpx.Client(http2=True, verify=broker.tls(client), trust_env=False, timeout=PATIENCE, **options)


class TestCurl:
    pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

    def curl(self, broker, path, *arguments, body=None):
        certificate, key = broker.pair("demo")
        done = subprocess.run(
            ["curl", "--disable", "--silent", "--http2", "--noproxy", "*", "--max-time", str(PATIENCE)]
            + ["--cacert", broker.authority, "--cert", certificate, "--key", key, *arguments]
            + ["--write-out", "\n%{http_version} %{http_code}"]
            + (["--data-binary", "@-"] if body is not None else [])
            + [broker.url + path],
            input=body,
            capture_output=True,
            timeout=2 * PATIENCE,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        text, figures = done.stdout.decode().rsplit("\n", 1)
        version, status = figures.split(" ")
        assert version == "2"
        return int(status), text

    def test_an_event_is_stored(self, shared_broker):
        headers = ["-H", "Content-Type: application/cloudevents+json"]
        assert self.curl(shared_broker, EVENT, *headers, body=encode(record(1))) == (202, "")

    def test_a_body_that_is_waited_for_is_asked_for(self, shared_broker):
        headers = ["-H", "Content-Type: application/cloudevents+json", "-H", "Expect: 100-continue"]
        headers += ["--expect100-timeout", str(PATIENCE)]
        assert self.curl(shared_broker, EVENT, *headers, body=encode(record(1))) == (202, "")

    def test_a_body_that_is_too_long_is_refused(self, shared_broker):
        headers = ["-H", "Content-Type: application/cloudevents-batch+json"]
        status, text = self.curl(shared_broker, EVENTS, *headers, body=b" " * (2 << 20))
        assert status == 413
        assert_clear(text, str(1 << 20))

    def test_a_head_request_has_no_body(self, shared_broker):
        status, text = self.curl(shared_broker, "/nowhere", "--head")
        assert status == 404
        assert "content-length: " in text and text.endswith("\r\n\r\n")


class TestHttpx:
    def test_all_forms_are_stored_over_one_connection(self, broker):
        opened = []
        trace = {"trace": lambda name, _: opened.append(name) if name == "connection.connect_tcp.started" else None}
        with http2(broker) as client:

            def post(path, body, headers):
                answer = client.post(broker.url + path, content=body, headers=headers, extensions=trace)
                assert answer.http_version == "HTTP/2"
                return answer

            assert_stored(post(EVENT, encode(record(1)), STRUCTURED))
            assert_stored(post(EVENTS, encode([record(2), record(3)]), BATCH))
            assert_stored(post(RAW, b'{"number":4,"name":"d"}', raw_headers("4", "application/json", RECORD)))
            refused = post(EVENT, encode(record(5, data={"number": "one", "name": "x"})), STRUCTURED)
            assert refused.status_code == 422
            assert_clear(refused.text)
            assert "connection" not in refused.headers and "transfer-encoding" not in refused.headers
        assert len(opened) == 1
        with consume(broker) as session:
            assert sorted(next_ids(session, 4)) == ["1", "2", "3", "4"]

    async def test_many_requests_at_once_share_a_connection(self, broker):
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(
            http2=True, verify=broker.tls(), trust_env=False, timeout=PATIENCE, limits=limits
        ) as client:

            async def one(number):
                return await client.post(broker.url + EVENT, content=encode(record(number)), headers=STRUCTURED)

            answers = await asyncio.gather(*(one(number) for number in range(300)))
        assert {answer.status_code for answer in answers} == {202}

    def test_a_batch_as_large_as_may_be_passes_through_the_windows(self, broker):
        batch = [record(number, data={"number": number, "name": "x", "note": "y" * 900}) for number in range(900)]
        with http2(broker) as client:
            assert_stored(client.post(broker.url + EVENTS, content=encode(batch), headers=BATCH))

    def test_strangers_are_told_why(self, shared_broker):
        with http2(shared_broker, client=None) as client:
            answer = client.post(shared_broker.url + EVENT, content=encode(record(1)), headers=STRUCTURED)
        assert answer.http_version == "HTTP/2" and answer.status_code == 400
        assert_clear(answer.text, "certificate")


class Streams:
    """A connection of the `h2` package, with WebSockets of `wsproto` on its streams."""

    def __init__(self, broker, client="demo"):
        context = broker.tls(client)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("localhost", broker.port), timeout=PATIENCE)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.authority = f"localhost:{broker.port}"
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.answers, self.data, self.ended = {}, {}, set()
        self.flush()
        while not self.h2.remote_settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL):
            self.receive()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def receive(self):
        """Takes what the socket has next; false at the end of the connection."""
        received = self.socket.recv(1 << 16)
        try:
            events = self.h2.receive_data(received) if received else []
        except ProtocolError:
            # This package takes nothing after a GOAWAY, not even the PING by which the broker learns that it was heard.
            return False
        for event in events:
            if isinstance(event, ResponseReceived):
                self.answers[event.stream_id] = dict(event.headers)
            elif isinstance(event, DataReceived):
                self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (StreamEnded, StreamReset)):
                self.ended.add(event.stream_id)
        self.flush()
        return bool(received)

    def request(self, method, path, headers=(), body=None, protocol=None):
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", self.authority), (":path", path)]
        head += [(":protocol", protocol)] if protocol else []
        ends = body is None and protocol is None
        self.h2.send_headers(stream, head + list(headers), end_stream=ends)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=True)
        self.flush()
        return stream

    def answer(self, stream):
        while stream not in self.answers:
            assert self.receive(), "the connection ended without an answer"
        return int(self.answers[stream][":status"])

    def text(self, stream):
        while stream not in self.ended:
            assert self.receive(), "the connection ended within an answer"
        return self.data[stream].decode()


class WebSocket:
    """A consumer session on a stream."""

    def __init__(self, streams, query):
        self.streams = streams
        self.stream = streams.request("CONNECT", f"/ce/consume/ws?{query}", WEB_SOCKET, protocol="websocket")
        assert streams.answer(self.stream) == 200
        assert streams.answers[self.stream]["sec-websocket-protocol"] == SUB_PROTOCOL
        self.codec = Connection(ConnectionType.CLIENT)
        self.events = []

    def send(self, event):
        self.streams.h2.send_data(self.stream, self.codec.send(event))
        self.streams.flush()

    def confirm(self, offset):
        self.send(TextMessage(f"confirm:{offset}"))

    def next(self):
        """The next text message, or the broker's close."""
        text = ""
        while True:
            for event in self.events:
                self.events = self.events[1:]
                if isinstance(event, Ping):
                    self.send(event.response())
                elif isinstance(event, CloseConnection):
                    if self.codec.state is ConnectionState.REMOTE_CLOSING:
                        self.send(event.response())
                    return event
                elif isinstance(event, TextMessage):
                    text += event.data
                    if event.message_finished:
                        return json.loads(text)
            while not (data := self.streams.data.pop(self.stream, b"")):
                assert self.streams.receive(), "the connection ended within a session"
            self.codec.receive_data(data)
            self.events += self.codec.events()

    def next_ids(self, count):
        return [self.next()["id"] for _ in range(count)]


class TestWebSocketOnAStream:
    def test_a_session_confirms_and_is_resumed_next_to_requests(self, broker):
        produce(broker, [record(number, partitionkey="k") for number in range(10)])
        with Streams(broker) as streams:
            first, other = WebSocket(streams, "group=g"), WebSocket(streams, "group=other")
            assert first.next_ids(6) == [str(number) for number in range(6)]
            first.confirm(4)
            stored = streams.request("POST", EVENT, list(STRUCTURED.items()), encode(record(10, partitionkey="k")))
            assert streams.answer(stored) == 202
            assert other.next_ids(11) == [str(number) for number in range(11)]
            first.send(CloseConnection(code=1000))
            while not isinstance(first.next(), CloseConnection):
                pass
            again = WebSocket(streams, "group=g")
            assert again.next_ids(7) == [str(number) for number in range(4, 11)]

    def test_a_refusal_is_an_ordinary_answer(self, shared_broker):
        with Streams(shared_broker) as streams:
            refused = streams.request("CONNECT", "/ce/consume/ws", WEB_SOCKET[:1], protocol="websocket")
            assert streams.answer(refused) == 400
            assert_clear(streams.text(refused), SUB_PROTOCOL)
            other = streams.request("CONNECT", "/ce/consume/ws", WEB_SOCKET, protocol="connect-udp")
            assert streams.answer(other) == 400
            assert_clear(streams.text(other), "websocket")

    def test_a_stopping_broker_closes_sessions_before_their_connection(self, broker):
        with Streams(broker) as streams:
            session = WebSocket(streams, "group=g")
            broker.ask_to_stop()
            close = session.next()
            assert isinstance(close, CloseConnection) and close.code == 1012
            while streams.receive():
                pass
