"""`tests/CONTRACT.md` says which test proves what; a test that was renamed or removed must not stay there."""

import re

import pytest

from broker import ROOT

TABLE = (ROOT / "tests" / "CONTRACT.md").read_text()
NAMES = sorted(set(re.findall(r"`([^`]+)::([a-z0-9_]+)`( ²)?", TABLE)))


def test_every_row_has_a_proof():
    rows = [line for line in TABLE.splitlines() if line.startswith("| ") and not line.startswith(("| promise", "| ---"))]
    assert len(rows) > 60
    assert [row for row in rows if "::" not in row] == []


@pytest.mark.parametrize(("file", "name", "both"), NAMES, ids=lambda value: value if "test" in value or "_" in value else "")
def test_a_named_test_exists(file, name, both):
    path = ROOT / file if file.startswith("src/") else ROOT / "tests" / file
    text = path.read_text()
    assert re.search(rf"\b(fn|def) {name}\(", text), f"{path} has no test {name}"
    if both:
        head = text.split(f"def {name}(")[0].rsplit("\n\n\n", 1)[-1]
        assert "over_both" in head or "pytestmark = over_both" in text, f"{name} does not run over both versions of HTTP"
