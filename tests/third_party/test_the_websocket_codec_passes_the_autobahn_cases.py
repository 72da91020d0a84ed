"""The cases of the Autobahn test suite, driven by `kosoku`, against an echo server that is built on the broker's own
WebSocket codec, TLS and sockets: framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, and messages that a
sender fragments by itself."""

import asyncio
import os
import subprocess
import tempfile
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from kosoku import FailureError, run_fuzzingclient

from broker import PATIENCE, ROOT, binary, tls

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
# How many cases these are: a suite that finds fewer does not run what it should.
COUNT = 247
# A frame is checked for UTF-8 when all of it is there. These cases would have a fault found within half a frame, which the
# protocol leaves open ("non-strict").
LATE = {"6.4.3", "6.4.4"}


def echo_binary() -> Path:
    """The example `websocket-echo`, which stands beside the broker or is named by the environment's `NISTRU_ECHO`."""
    beside = binary().parent / "examples" / "websocket-echo"
    path = Path(os.environ.get("NISTRU_ECHO") or beside)
    assert path.is_file(), f"{path} is missing: cargo build --example websocket-echo, or name another in NISTRU_ECHO"
    return path


@pytest.fixture
def echo():
    """Its port, and how to trust it."""
    with tempfile.TemporaryDirectory(prefix="nistru-echo-") as directory:
        process = subprocess.Popen([echo_binary(), directory], stdout=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline()
            assert line.startswith("ready "), f"the echo server ended before it was ready: {line}"
            yield int(line.split()[1]), tls(Path(directory) / "pki" / "ca.pem")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@asynccontextmanager
async def tunnel(port, context):
    """The suite speaks no TLS: this does it for it. It also offers the sub-protocol, which the suite does not."""

    async def relay(reader, writer):
        with closing(writer):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        far_reader, far_writer = await asyncio.open_connection("localhost", port, ssl=context)
        far_writer.write(head[:-2] + b"Sec-WebSocket-Protocol: echo\r\n\r\n")
        # A side that is reset is a side that has ended.
        await asyncio.gather(relay(reader, far_writer), relay(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1")
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def told(case):
    return f"{case.case_id} {case.behavior.value}, close {case.behavior_close.value}: {case.result} {case.result_close}"


async def test_the_codec_passes_the_cases(echo):
    async with tunnel(*echo) as port:
        try:
            run = run_fuzzingclient(f"ws://127.0.0.1:{port}", CASES, concurrency=4)
            results = await asyncio.wait_for(run, 5 * PATIENCE)
        except FailureError as failure:
            pytest.fail("\n".join(told(case) for case in failure.results if not case.passed))
    assert len(results) == COUNT
    lax = [case for case in results if case.behavior.value not in ("OK", "INFORMATIONAL") and case.case_id not in LATE]
    assert not lax, "\n".join(map(told, lax))
