"""Swagger UI in headless Chromium with a client certificate: the page renders, and what is tried out from it happens."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sessions import consume, next_event

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
        "follow": "location",
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


def test_an_event_is_produced_from_the_page(broker, chromium, tmp_path):
    event = {"specversion": "1.0", "id": "from-the-page", "source": "urn:demo", "type": "Demo.Load.Record.Created"}
    event["data"] = {"number": 7, "name": "page"}
    seen = browse(
        broker,
        chromium,
        tmp_path / "profile",
        [{"operation": "produceEvent", "body": json.dumps(event)}, {"operation": "openapiJson"}],
    )
    assert seen["title"].startswith("nistru")
    assert "/ce/produce/event" in seen["operations"] and "/ce/consumers" in seen["operations"]
    assert [(answer["status"], answer["shown"]) for answer in seen["answers"]] == [(202, "202"), (200, "200")]
    with consume(broker) as session:
        assert next_event(session)["id"] == "from-the-page"
