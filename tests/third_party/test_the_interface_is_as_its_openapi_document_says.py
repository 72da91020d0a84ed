"""The OpenAPI document that the broker serves: it is valid, and schemathesis finds no answer that it does not describe."""

import subprocess
import sys
from pathlib import Path

import requests
import yaml
from openapi_spec_validator import OpenAPIV30SpecValidator, validate

CONFIGURATION = Path(__file__).resolve().parent / "schemathesis.toml"
# Requests for each operation and phase; all of it takes some ten seconds on an idle machine.
EXAMPLES = 30
PATIENCE = 160


def document(broker, name):
    answer = requests.get(f"{broker.url}/{name}", verify=broker.authority, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer


def test_the_document_is_valid_and_its_two_forms_say_the_same(shared_broker):
    specification = document(shared_broker, "openapi.json").json()
    validate(specification, cls=OpenAPIV30SpecValidator)
    assert yaml.safe_load(document(shared_broker, "openapi.yaml").content) == specification


def test_no_request_gets_an_answer_that_the_document_does_not_describe(make_broker, tmp_path):
    broker = make_broker()
    certificate, key = broker.pair("demo")
    done = subprocess.run(
        [
            *(sys.executable, "-c", "import schemathesis.cli; schemathesis.cli.schemathesis()"),
            *("--config-file", CONFIGURATION, "run", f"{broker.url}/openapi.json"),
            *("--request-cert", certificate, "--request-cert-key", key, "--tls-verify", broker.authority),
            *("--exclude-path-regex", "consumers"),
            *("--max-examples", str(EXAMPLES), "--seed", "7", "--no-color"),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=tmp_path,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Operations:" in done.stdout, done.stdout
