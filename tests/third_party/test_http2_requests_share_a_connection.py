"""HTTP/2 with `curl`, and with many requests at once of `httpx`."""

import asyncio
import shutil
import subprocess

import httpx
import pytest

from broker import PATIENCE
from events import BATCH, EVENT, EVENTS, RAW, RECORD, STRUCTURED, assert_clear, assert_stored, encode, raw_headers, record
from sessions import consume, next_ids


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
