"""Swagger UI in headless Chromium with a client certificate: the page renders, and what is tried out from it happens."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from events import records
from sessions import consume, next_event, produce, producer

HERE = Path(__file__).resolve().parent / "node"
# Starting a browser and drawing half a megabyte of specification takes a while on a busy machine.
PATIENCE = 120


@pytest.fixture(scope="module")
def chromium():
    program = shutil.which("chromium")
    if program is None or shutil.which("node") is None:
        pytest.skip("chromium or node is not installed")
    assert (HERE / "node_modules" / "playwright-core").is_dir(), "playwright-core is not installed: run tests/third_party/run"
    return program


def browse(broker, chromium, profile, tries, client="demo"):
    certificate, key = broker.pair(client)
    orders = {
        "url": broker.url,
        "cert": certificate,
        "key": key,
        "chromium": chromium,
        "profile": str(profile),
        "tries": tries,
        # To look at the page: SWAGGER_SCREENSHOT=page.png tests/third_party/run -k browser
        "screenshot": os.environ.get("SWAGGER_SCREENSHOT"),
    }
    done = subprocess.run(
        ["node", HERE / "swagger.mjs", json.dumps(orders)], capture_output=True, text=True, timeout=PATIENCE, cwd=HERE
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    seen = json.loads(done.stdout)
    assert seen["problems"] == []
    return seen


def shown(seen):
    """Operations with the status of their answer, which the page must show too."""
    for answer in seen["answers"]:
        assert answer["shown"] == str(answer["status"])
    return [(answer["operation"], answer["status"]) for answer in seen["answers"]]


def test_events_are_produced_from_the_page(broker, chromium, tmp_path):
    event = {"specversion": "1.0", "id": "from-the-page", "source": "urn:demo", "type": "Demo.Load.Record.Created"}
    event["data"] = {"number": 7, "name": "page"}
    seen = browse(
        broker,
        chromium,
        tmp_path / "profile",
        # All but the first as the page fills them in.
        [
            {"operation": "produceEvent", "body": json.dumps(event)},
            {"operation": "produceRaw"},
            {"operation": "produceEvents"},
            {"operation": "mySettings"},
            {"operation": "openapiJson"},
        ],
    )
    assert seen["title"].startswith("nistru")
    assert "/ce/produce/event" in seen["operations"] and "/ce/consumers" in seen["operations"]
    assert shown(seen) == [
        ("produceEvent", 202),
        ("produceRaw", 202),
        ("produceEvents", 202),
        ("mySettings", 200),
        ("openapiJson", 200),
    ]
    with consume(broker) as session:
        ids = [next_event(session)["id"] for _ in range(4)]
        assert sorted(ids) == ["1", "1", "2", "from-the-page"]


def test_events_are_read_by_long_polling_from_the_page(broker, chromium, tmp_path):
    produce(broker, records(3, partitionkey="k"))
    tries = [
        {"operation": "createInstance", "fill": {"group": "from the page / ă", "test": "false"}},
        {"operation": "readEvents"},
        {"operation": "confirm"},
        {"operation": "deleteInstance"},
    ]
    seen = browse(broker, chromium, tmp_path / "profile", tries)
    statuses = [("createInstance", 201), ("readEvents", 200), ("confirm", 204), ("deleteInstance", 204)]
    assert shown(seen) == statuses
    base = seen["answers"][0]["headers"]["location"]
    assert base.startswith(broker.url)
    assert [event["id"] for event in json.loads(seen["answers"][1]["body"])] == ["0", "1", "2"]
    with producer(broker) as session:
        assert session.get(f"{base}/event").status_code == 404
