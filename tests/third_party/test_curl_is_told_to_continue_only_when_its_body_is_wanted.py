"""`Expect: 100-continue`, chunked bodies and ambiguous requests with the `curl` program."""

import shutil
import subprocess

import pytest

from broker import PATIENCE
from events import EVENT, RAW, assert_clear, encode, record

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

STRUCTURED = ["-H", "Content-Type: application/cloudevents+json"]
EXPECTING = ["-H", "Expect: 100-continue", "--expect100-timeout", str(PATIENCE)]


class Answer:
    """What curl saw: the body, the status, bytes of body sent, and its own account of the exchange."""

    def __init__(self, output, account):
        self.text, figures = output.rsplit("\n", 1)
        status, sent, kind = figures.split(" ", 2)
        self.status, self.sent, self.kind, self.account = int(status), int(sent), kind, account


def curl(broker, path, *arguments, body=b"", client="demo"):
    certificate = ["--cert", broker.pair(client)[0], "--key", broker.pair(client)[1]] if client else []
    done = subprocess.run(
        ["curl", "--disable", "--silent", "--verbose", "--http1.1", "--noproxy", "*", "--max-time", str(PATIENCE)]
        + ["--cacert", broker.authority, *certificate, *arguments]
        + ["--write-out", "\n%{http_code} %{size_upload} %{content_type}", "--data-binary", "@-", broker.url + path],
        input=body,
        capture_output=True,
        timeout=2 * PATIENCE,
    )
    account = done.stderr.decode(errors="replace")
    assert done.returncode == 0, account
    return Answer(done.stdout.decode(), account)


def test_the_body_is_asked_for_and_taken(shared_broker):
    body = encode(record(1))
    answer = curl(shared_broker, EVENT, *STRUCTURED, *EXPECTING, body=body)
    assert (answer.status, answer.sent, answer.text) == (202, len(body), "")
    assert "HTTP/1.1 100 Continue" in answer.account


def test_a_chunked_body_is_asked_for_and_taken(shared_broker):
    body = encode(record(1, data={"number": 1, "name": "x", "note": "y" * 40_000}))
    answer = curl(shared_broker, EVENT, *STRUCTURED, *EXPECTING, "-H", "Transfer-Encoding: chunked", body=body)
    assert answer.status == 202
    assert "HTTP/1.1 100 Continue" in answer.account and "Transfer-Encoding: chunked" in answer.account


@pytest.mark.parametrize(
    ("path", "client", "length", "status"),
    [
        ("/ce/produce/nothing", "demo", 5000, 404),
        (EVENT, "police", 5000, 401),
        (EVENT, None, 5000, 400),
        (EVENT, "demo", (1 << 20) + 1, 413),
    ],
    ids=["unknown_path", "not_a_producer", "no_certificate", "too_long"],
)
def test_a_body_that_is_not_wanted_is_never_sent(shared_broker, path, client, length, status):
    answer = curl(shared_broker, path, *STRUCTURED, *EXPECTING, body=b" " * length, client=client)
    assert (answer.status, answer.sent) == (status, 0)
    assert answer.kind == "text/plain; charset=utf-8"
    assert_clear(answer.text)
    assert "100 Continue" not in answer.account


def test_another_expectation_is_refused(shared_broker):
    answer = curl(shared_broker, EVENT, *STRUCTURED, "-H", "Expect: a-miracle", body=encode(record(1)))
    assert answer.status == 417
    assert_clear(answer.text, "100-continue")


def test_a_request_with_two_lengths_is_refused_and_ends_the_connection(shared_broker):
    both = ["-H", "Transfer-Encoding: chunked", "-H", "Content-Length: 3"]
    answer = curl(shared_broker, EVENT, *STRUCTURED, *both, body=encode(record(1)))
    assert answer.status == 400
    assert_clear(answer.text, "Content-Length")
    assert "< Connection: close" in answer.account


def test_the_old_protocol_version_works_without_keep_alive(shared_broker):
    headers = ["-H", "ce-specversion: 1.0", "-H", "ce-id: 1", "-H", "ce-source: urn:demo"]
    headers += ["-H", "ce-type: Demo.Load.Blob.Created", "-H", "Content-Type: text/plain"]
    answer = curl(shared_broker, RAW, "--http1.0", "--no-alpn", *headers, body=b"hello")
    assert answer.status == 202


def test_a_thousand_headers_are_too_many(shared_broker):
    many = [part for number in range(1000) for part in ("-H", f"X-{number}: x")]
    answer = curl(shared_broker, EVENT, *STRUCTURED, *many, body=encode(record(1)))
    assert answer.status == 431
    assert_clear(answer.text)
