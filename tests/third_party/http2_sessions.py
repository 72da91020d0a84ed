"""A consumer session over HTTP/2 (RFC 8441): the package `h2` speaks the connection, `wsproto` the frames of the WebSocket.
It can be used where a session of `websockets` can."""

import socket
import time

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, RemoteSettingsChanged, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from broker import PATIENCE


class Pending:
    """What `websockets` gives for a ping."""

    def __init__(self, wait):
        self._wait = wait

    def wait(self, timeout):
        self._wait(timeout)
        return True


class Http2Session:
    """Blocking. Opens with the first stream of a connection of its own."""

    def __init__(self, broker, path, subprotocols, client="demo", max_size=None):
        self._max_size = max_size
        self._events = []
        self._messages = []
        # The frames of the message at hand, and of the frame at hand what has come.
        self._frames_text = []
        self._frame_text = ""
        self._pongs = set()
        self._closed = None
        self._said_goodbye = False
        self._frames = Connection(ConnectionType.CLIENT)
        self._connect(broker, client)
        self._stream = self._http.get_next_available_stream_id()
        try:
            self.subprotocol = self._shake_hands(broker, path, subprotocols)
        except BaseException:
            self.socket.close()
            raise

    def _connect(self, broker, client):
        context = broker.tls(client)
        context.set_alpn_protocols(["h2"])
        self.socket = context.wrap_socket(socket.create_connection(("localhost", broker.port)), server_hostname="localhost")
        assert self.socket.selected_alpn_protocol() == "h2"
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._http.initiate_connection()
        self._flush()
        settings = self._wait_for(RemoteSettingsChanged).changed_settings
        assert settings[SettingCodes.ENABLE_CONNECT_PROTOCOL].new_value == 1, "the broker offers no extended CONNECT"

    def _shake_hands(self, broker, path, subprotocols):
        headers = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":path", path),
            (":authority", f"localhost:{broker.port}"),
            ("sec-websocket-version", "13"),
        ]
        if subprotocols:
            headers.append(("sec-websocket-protocol", ", ".join(subprotocols)))
        self._http.send_headers(self._stream, headers)
        self._flush()
        answer = Headers(self._wait_for(ResponseReceived).headers)
        if answer[":status"] != "200":
            raise InvalidStatus(self._refusal(answer))
        return answer.get("sec-websocket-protocol")

    def _refusal(self, headers):
        body = b""
        while True:
            event = self._wait_for(DataReceived, StreamEnded)
            if isinstance(event, StreamEnded):
                return Response(int(headers[":status"]), "", headers, body)
            body += event.data

    def _wait_for(self, *kinds):
        """The next event of HTTP/2 of one of these kinds; others are skipped."""
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, kinds):
                    return event
                assert not isinstance(event, (ConnectionTerminated, StreamReset)), f"the broker ended the connection: {event}"
            assert self._receive(PATIENCE), "the broker ended the connection"

    def _receive(self, timeout):
        """Reads once; `False` at the end of the connection."""
        self.socket.settimeout(timeout)
        data = self.socket.recv(1 << 16)
        if data:
            events = self._http.receive_data(data)
            for event in events:
                if isinstance(event, DataReceived) and event.flow_controlled_length:
                    self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._events += events
            self._flush()
        return bool(data)

    def _flush(self):
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(self._http.data_to_send())

    def _write(self, data):
        while data:
            try:
                room = min(self._http.local_flow_control_window(self._stream), self._http.max_outbound_frame_size)
                if room:
                    self._http.send_data(self._stream, data[:room])
                    data = data[room:]
                    self._flush()
                    continue
            except ProtocolError:
                # The broker has ended the stream; what it said before is still to be read.
                raise ConnectionClosedError(None, None) from None
            if not self._receive(PATIENCE):
                raise ConnectionClosedError(None, None)

    def send(self, message, text=False):
        """Text as a text message, bytes as a binary one unless `text` says otherwise, anything else in fragments."""
        if isinstance(message, (str, bytes)):
            kind = BytesMessage if isinstance(message, bytes) else TextMessage
            frame = self._frames.send(kind(message))
            # wsproto checks what it calls text, so the type of such a frame is changed afterwards.
            return self._write(bytes([frame[0] & 0xF0 | 1]) + frame[1:] if text else frame)
        parts = list(message)
        for number, part in enumerate(parts):
            self._write(self._frames.send(TextMessage(part, message_finished=number == len(parts) - 1)))

    def recv(self, timeout=None):
        """The next message; raises as `websockets` does when the session is over."""
        self._receive_until(lambda: self._messages, timeout)
        return "".join(self._messages.pop(0))

    def recv_streaming(self):
        """The frames of the next message."""
        self._receive_until(lambda: self._messages, PATIENCE)
        return iter(self._messages.pop(0))

    def _receive_until(self, found, timeout):
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._sort_events()
            if found():
                return
            if self._closed:
                raise self._closed
            left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
            if not self._receive(left) and not self._closed:
                self._closed = ConnectionClosedError(None, None)

    def _sort_events(self):
        ended = False
        while self._events:
            event = self._events.pop(0)
            # The stream ends with an empty piece behind the last frame.
            if isinstance(event, DataReceived) and event.data:
                self._frames.receive_data(event.data)
                for frame in self._frames.events():
                    self._sort_frame(frame)
            ended |= isinstance(event, (StreamEnded, StreamReset, ConnectionTerminated))
        if ended and not self._closed:
            self._closed = ConnectionClosedError(None, None)

    def _sort_frame(self, frame):
        if isinstance(frame, TextMessage):
            self._frame_text += frame.data
            if frame.frame_finished:
                self._frames_text.append(self._frame_text)
                self._frame_text = ""
            if frame.message_finished:
                message = "".join(self._frames_text).encode()
                assert self._max_size is None or len(message) <= self._max_size, f"a message of {len(message)} bytes"
                self._messages.append(self._frames_text)
                self._frames_text = []
        elif isinstance(frame, Ping):
            self._write(self._frames.send(frame.response()))
        elif isinstance(frame, Pong):
            self._pongs.add(bytes(frame.payload))
        elif isinstance(frame, CloseConnection):
            if not self._said_goodbye:
                self._answer_close(frame)
            kind = ConnectionClosedOK if frame.code in (1000, 1001) else ConnectionClosedError
            close = Close(frame.code, frame.reason or "")
            self._closed = kind(close, close, not self._said_goodbye)

    def _answer_close(self, frame):
        try:
            self._write(self._frames.send(frame.response()))
        except ConnectionClosedError:
            pass  # the broker did not wait for the answer

    def ping(self, payload=""):
        """Something that waits for the pong."""
        payload = payload.encode()
        self._pongs.discard(payload)
        self._write(self._frames.send(Ping(payload)))
        return Pending(lambda timeout: self._receive_until(lambda: payload in self._pongs, timeout))

    def close(self, code=1000, reason=""):
        """Says goodbye and waits for the answer."""
        try:
            self._sort_events()
            if not self._closed:
                self._said_goodbye = True
                self._write(self._frames.send(CloseConnection(code, reason)))
                self._receive_until(lambda: False, PATIENCE)
        except (ConnectionClosedOK, ConnectionClosedError):
            pass
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()
