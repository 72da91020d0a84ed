"""Events as clients write them, and what is asserted about answers."""

import json
from urllib.parse import quote

RECORD = "Demo.Load.Record.Created"
BLOB = "Demo.Load.Blob.Created"

RAW = "/ce/produce/raw"
EVENT = "/ce/produce/event"
EVENTS = "/ce/produce/events"
TEST = "/ce/tools/consumer/test"

STRUCTURED = {"Content-Type": "application/cloudevents+json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}


def record(number, **attributes) -> dict:
    """A CloudEvent of the type with a schema. Attributes given as `None` are left out."""
    event = {
        "specversion": "1.0",
        "id": str(number),
        "source": "urn:demo",
        "type": RECORD,
        "data": {"number": number, "name": f"n{number}"},
    }
    event.update(attributes)
    return {name: value for name, value in event.items() if value is not None}


def records(count, **attributes) -> list:
    return [record(number, **attributes) for number in range(count)]


def raw_headers(identity, content_type, kind=BLOB, **attributes) -> dict:
    """The headers of an event in binary mode."""
    values = {"specversion": "1.0", "id": identity, "source": "urn:demo", "type": kind, **attributes}
    headers = {f"ce-{name}": quote(str(value), safe=" !#$&'()*+,/:;=?@[]~") for name, value in values.items() if value is not None}
    if content_type is not None:
        headers["Content-Type"] = content_type
    return headers


def encode(value) -> bytes:
    """JSON as clients send it: UTF-8, no escapes where none are needed."""
    return json.dumps(value, ensure_ascii=False).encode()


def data_of(message: str) -> str:
    """The exact text of `data` in a delivered message, which ends with data and offset."""
    return message.split('"data":', 1)[1].rsplit(',"offset":"', 1)[0]


def without_offset(message) -> dict:
    event = json.loads(message)
    assert event.pop("offset").isdigit()
    return event


def assert_stored(answer):
    """The answer of `requests` or `httpx` to a produce request that was taken."""
    assert answer.status_code == 202, f"{answer.status_code}: {answer.text}"
    assert answer.content == b""


def assert_refused(answer, status, *texts):
    """A plain text for the developer, which names what is wrong and nothing of the server's insides."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert_clear(answer.text, *texts)


def assert_clear(text, *expected):
    assert text.strip(), "the answer says nothing"
    for part in expected:
        assert part in text, f"{part!r} is not in {text!r}"
    for internal in ("panicked", "src/", ".rs", "/tmp/", "Error {"):
        assert internal not in text, f"{text!r} shows {internal!r}"
    lines = text.splitlines()
    assert len(set(lines)) == len(lines), f"the answer repeats itself: {text!r}"
