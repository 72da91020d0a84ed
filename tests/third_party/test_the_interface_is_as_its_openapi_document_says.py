"""The OpenAPI document that the broker serves: it is valid, and schemathesis finds no answer that it does not describe."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from openapi_spec_validator import OpenAPIV30SpecValidator, validate

from events import records
from sessions import over_both, produce, producer, send

CONFIGURATION = Path(__file__).resolve().parent / "schemathesis.toml"
# Requests for each operation and phase; all of it takes some ten seconds on an idle machine.
EXAMPLES = 30
PATIENCE = 160


def document(broker, name):
    with producer(broker, client=None) as session:
        answer = send(broker, session, "GET", f"/{name}")
        assert answer.status_code == 200, answer.text
        return answer


@over_both
def test_the_document_is_valid_and_its_two_forms_say_the_same(shared_broker):
    specification = json.loads(document(shared_broker, "openapi.json").content)
    validate(specification, cls=OpenAPIV30SpecValidator)
    assert yaml.safe_load(document(shared_broker, "openapi.yaml").content) == specification


def try_out(broker, directory, *options, client="demo", examples=EXAMPLES, **parameters):
    """Lets schemathesis send requests as the client, with these path parameters; it must find nothing wrong with the answers."""
    certificate = ("--request-cert", broker.pair(client)[0], "--request-cert-key", broker.pair(client)[1]) if client else ()
    fixed = "".join(f'"path.{name}" = "{value}"\n' for name, value in parameters.items())
    configuration = directory / "schemathesis.toml"
    configuration.write_text(CONFIGURATION.read_text() + "\n[parameters]\n" + fixed)
    done = subprocess.run(
        [
            *(sys.executable, "-c", "import schemathesis.cli; schemathesis.cli.schemathesis()"),
            *("--config-file", configuration, "run", f"{broker.url}/openapi.json"),
            *(*certificate, "--tls-verify", broker.authority),
            *("--max-examples", str(examples), "--seed", "7", "--no-color", *options),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=directory,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Operations:" in done.stdout, done.stdout


def test_no_request_gets_an_answer_that_the_document_does_not_describe(make_broker, tmp_path):
    try_out(make_broker(), tmp_path)


def test_nor_does_one_of_a_client_that_only_consumes(make_broker, tmp_path):
    try_out(make_broker(), tmp_path, client="police", examples=5)


def test_nor_does_one_without_a_certificate(make_broker, tmp_path):
    # Who they are is looked at before what they want.
    try_out(make_broker(), tmp_path, "--exclude-checks", "unsupported_method", client=None, examples=5)


def test_nor_does_one_about_an_instance_that_is_there(make_broker, tmp_path):
    # More events than are asked for, so that few polls have to wait.
    broker = make_broker(polling={"timeout": '"1s"', "instance_timeout": '"600s"', "batch_events": "2"})
    produce(broker, records(2000))
    with producer(broker) as session:
        made = session.post(f"{broker.url}/ce/consumers?group=g")
        assert made.status_code == 201, made.text
        bridge, _, _, group, _, instance = urlsplit(made.headers["Location"]).path[1:].split("/")
        reads = ("--include-path-regex", "instances", "--exclude-method", "DELETE")
        try_out(broker, tmp_path, *reads, examples=10, bridge=bridge, group=group, instance=instance)
        # It is still there, and has been read.
        assert session.post(f"{made.headers['Location']}/confirm").status_code == 204
        assert int(session.get(f"{made.headers['Location']}/event").json()["offset"]) > 50
