"""What the .NET client library of MConnect Events does on the wire, as far as it is its own way of doing things."""

import http.client
import json
from urllib.parse import quote

from websockets.sync.client import connect

from broker import PATIENCE
from sessions import OPTIONS

# It receives each message into one buffer of this size and drops the connection when one does not fit.
BUFFER_BYTES = 64 << 10


class RequestFailed(Exception):
    """Carries the body only when it is plain text; otherwise the user sees the status alone."""


class DotNetClient:
    def __init__(self, broker, client="demo"):
        self._broker = broker
        self._tls = broker.tls(client)

    def produce(self, event):
        self._post("/ce/produce/event", "application/cloudevents+json; charset=utf-8", event)

    def produce_batch(self, events):
        self._post("/ce/produce/events", "application/cloudevents-batch+json; charset=utf-8", events)

    def _post(self, path, content_type, value):
        """Serialises straight into the connection, so that the length is not known before: in chunks."""
        connection = http.client.HTTPSConnection("localhost", self._broker.port, context=self._tls, timeout=PATIENCE)
        text = json.dumps(value, separators=(",", ":")).encode()
        pieces = (text[at : at + 1024] for at in range(0, len(text), 1024))
        connection.request("POST", path, pieces, {"Content-Type": content_type}, encode_chunked=True)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        if not 200 <= answer.status < 300:
            plain = answer.getheader("Content-Type", "").split(";")[0] == "text/plain"
            raise RequestFailed(f"{answer.status} {body if plain else ''}")

    def consume(self, group, events=True, test=True, dead=False):
        return DotNetConsumer(self._broker, self._tls, f"events={events}&test={test}&dead={dead}&group={quote(group)}")


class DotNetConsumer:
    """A session, and a context manager."""

    def __init__(self, broker, tls, query):
        url = f"wss://localhost:{broker.port}/ce/consume/ws?{query}"
        self._session = connect(url, ssl=tls, proxy=None, max_size=BUFFER_BYTES, compression=None, legacy=True, **OPTIONS)
        self.discarded = 0

    def next(self):
        """The next event. One without a `datacontenttype` is discarded, and what cannot be parsed is reported dead."""
        while True:
            frames = list(self._session.recv_streaming())
            assert len(frames) == 1, "the rest of the message is lost to a client that receives once"
            text = frames[0]
            assert isinstance(text, str), "messages are text"
            event = json.loads(text)
            if "data" in event and "datacontenttype" not in event:
                self.discarded += 1
                continue
            return event

    def keep_alive(self):
        """A pong that nobody asked for, as the platform sends every 30 seconds."""
        self._session.pong(b"")

    def confirm(self, event):
        self._session.send(f"confirm:{event['offset']}")

    def report_dead(self, event):
        """The event as it came, or text that is not an event."""
        self._session.send(f"dead:{event if isinstance(event, str) else json.dumps(event)}")

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self._session.close()
