"""The clients of Java's own library (java.net.http) produce over each version of HTTP, and consume over WebSocket."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from broker import PATIENCE
from events import assert_clear

PROGRAM = Path(__file__).resolve().parent / "java" / "Client.java"


@pytest.fixture(autouse=True, scope="module")
def java():
    # A runtime without its compiler cannot run a source file.
    if shutil.which("java") is None or shutil.which("javac") is None:
        pytest.skip("no JDK is installed")


def run(broker, version):
    """What the program said, by the first word of each line."""
    certificate, key = broker.pair("demo")
    done = subprocess.run(
        ["java", PROGRAM, str(broker.port), broker.authority, certificate, key, version],
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    said = {"produced": [], "refused": [], "received": [], "closed": []}
    for line in done.stdout.splitlines():
        what, rest = line.split(" ", 1)
        said[what].append(rest)
    return said


@pytest.mark.parametrize("version", ["HTTP_1_1", "HTTP_2"])
def test_java_produces_consumes_confirms_and_resumes(broker, version):
    said = run(broker, version)
    assert said["produced"] == [f"202 {version}"] * 4
    (refused,) = said["refused"]
    assert refused.startswith(f"400 {version} text/plain;charset=utf-8 ")
    assert_clear(refused, "specversion")

    received = {"first": [], "second": []}
    for line in said["received"]:
        session, message = line.split(" ", 1)
        received[session].append(json.loads(message))
    assert [event["id"] for event in received["first"]] == ["1", "2", "3", "4", "5", "6"]
    assert received["first"][0]["data"] == {"number": 1, "name": "Ștefan"}
    assert received["first"][5]["data"] == "bună ziua"
    assert [(event["id"], event["offset"]) for event in received["second"]] == [("5", "1"), ("6", "2")]
    assert said["closed"] == ["first 1000 done", "second 1000 done"]
