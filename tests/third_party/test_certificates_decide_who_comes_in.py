"""No certificate, a foreign one, one of nobody, one out of date, one whose issuer is missing: each is told apart."""

import ssl
import subprocess

import aiohttp
import pytest
from websockets.exceptions import InvalidStatus

from broker import PATIENCE, tls
from events import EVENT, STRUCTURED, assert_clear, assert_refused, assert_stored, encode, record
from sessions import SUB_PROTOCOL, address, consume, next_event, over_both, post, produce, producer

CLIENT = "extendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\nbasicConstraints=CA:FALSE\n"
AUTHORITY = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"


def openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def new_key(directory, name):
    """A key and a request for a certificate."""
    key, request = directory / f"{name}.key", directory / f"{name}.csr"
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
    openssl("req", "-new", "-key", key, "-subj", f"/O=third party/CN={name}", "-out", request)
    return key, request


def issue(directory, name, issuer=None, extensions=CLIENT, start="200101000000Z", end="491231235959Z"):
    """A certificate of `issuer` (certificate and key), or one that signs itself."""
    key, request = new_key(directory, name)
    certificate, settings = directory / f"{name}.pem", directory / f"{name}.cnf"
    (directory / "index").write_text("")
    issued = directory / "issued"
    issued.mkdir(exist_ok=True)
    settings.write_text(
        f"[ca]\ndefault_ca=me\n[me]\ndatabase={directory}/index\nnew_certs_dir={issued}\nrand_serial=yes\n"
        f"default_md=sha256\npolicy=any\nx509_extensions=wanted\n[any]\norganizationName=optional\n"
        f"commonName=supplied\n[wanted]\n{extensions}"
    )
    signer = ["-cert", issuer[0], "-keyfile", issuer[1]] if issuer else ["-selfsign", "-keyfile", key]
    dates = ["-startdate", start, "-enddate", end]
    openssl("ca", "-batch", "-notext", "-config", settings, *signer, *dates, "-in", request, "-out", certificate)
    return str(certificate), str(key)


def dev_authority(broker):
    return broker.pki("ca.pem"), broker.pki("ca.key")


def answer_to(broker, pair):
    with producer(broker, pair) as session:
        return post(broker, session, EVENT, encode(record(1)), STRUCTURED)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_with_its_certificate_comes_in_by_either_tls_version(shared_broker, version):
    connector = aiohttp.TCPConnector(ssl=shared_broker.tls("demo", version))
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(PATIENCE)) as session:
        async with session.post(shared_broker.url + EVENT, data=encode(record(1)), headers=STRUCTURED) as answer:
            assert (answer.status, await answer.read()) == (202, b"")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_without_a_certificate_the_answer_says_so_by_either_tls_version(shared_broker, version):
    connector = aiohttp.TCPConnector(ssl=shared_broker.tls(None, version))
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(PATIENCE)) as session:
        async with session.post(shared_broker.url + EVENT, data=encode(record(1)), headers=STRUCTURED) as answer:
            assert (answer.status, answer.headers["content-type"]) == (400, "text/plain; charset=utf-8")
            assert_clear(await answer.text(), "certificate")


@over_both
def test_a_certificate_that_signs_itself_is_told_its_issuer_is_unknown(shared_broker, tmp_path):
    assert_refused(answer_to(shared_broker, issue(tmp_path, "stranger")), 400, "CN=stranger")


@over_both
def test_a_certificate_of_the_authority_that_no_client_holds_is_unauthorised(shared_broker, tmp_path):
    pair = issue(tmp_path, "nobody", dev_authority(shared_broker))
    assert_refused(answer_to(shared_broker, pair), 401, "no client is registered", "serial")


@over_both
def test_an_expired_certificate_is_told_since_when(shared_broker, tmp_path):
    pair = issue(tmp_path, "late", dev_authority(shared_broker), end="210203040506Z")
    assert_refused(answer_to(shared_broker, pair), 401, "expired", "2021-02-03")


@over_both
def test_a_certificate_that_is_not_valid_yet_is_told_from_when(shared_broker, tmp_path):
    pair = issue(tmp_path, "early", dev_authority(shared_broker), start="450203040506Z")
    assert_refused(answer_to(shared_broker, pair), 401, "not valid before", "2045-02-03")


@over_both
def test_a_certificate_for_servers_is_no_certificate_for_a_client(shared_broker):
    answer = answer_to(shared_broker, (str(shared_broker.pki("server.pem")), str(shared_broker.pki("server.key"))))
    assert_refused(answer, 400, "certificate")


@over_both
def test_a_missing_intermediate_is_told_apart_from_a_good_chain(make_broker, tmp_path):
    root = issue(tmp_path, "root", extensions=AUTHORITY)
    middle = issue(tmp_path, "middle", root, AUTHORITY)
    leaf, key = issue(tmp_path, "leaf", middle)
    broker = make_broker(tls={"client_ca": f'["pki/ca.pem", "{root[0]}"]'})
    broker.stop()
    client = broker.directory / "registry" / "clients" / "demo.toml"
    client.write_text(client.read_text().replace("../../pki/demo.pem", leaf))
    broker.start()
    assert_refused(answer_to(broker, (leaf, key)), 400, "CN=middle")
    chain = tmp_path / "chain.pem"
    chain.write_text(open(leaf).read() + open(middle[0]).read())
    assert_stored(answer_to(broker, (str(chain), key)))


@over_both
@pytest.mark.parametrize("client", [None, "asp"], ids=["no_certificate", "not_a_consumer"])
def test_a_websocket_is_refused_before_it_opens(shared_broker, client):
    with pytest.raises(InvalidStatus) as refused:
        consume(shared_broker, client=client)
    response = refused.value.response
    assert response.status_code == (401 if client else 400)
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert_clear(response.body.decode(), "consumer" if client else "certificate")


async def test_aiohttp_is_refused_a_websocket_with_an_unknown_certificate(shared_broker, tmp_path):
    pair = issue(tmp_path, "nobody", dev_authority(shared_broker))
    connector = aiohttp.TCPConnector(ssl=tls(shared_broker.authority, pair))
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(address(shared_broker), protocols=[SUB_PROTOCOL])
    assert refused.value.status == 401


@over_both
def test_a_consumer_may_not_produce_nor_a_producer_send_what_is_not_its_own(shared_broker):
    with producer(shared_broker, "police") as session:
        assert_refused(post(shared_broker, session, EVENT, encode(record(1)), STRUCTURED), 401, "producer")
    with producer(shared_broker, "asp") as session:
        assert_refused(post(shared_broker, session, EVENT, encode(record(1)), STRUCTURED), 401, "urn:demo", "urn:asp")


@over_both
def test_the_published_examples_go_from_their_producers_to_their_consumers(broker):
    invalidated = record(1, source="urn:asp", type="ASP.RST.VP.Invalidated", data={"IDNP": "2000000000001", "Number": "A1"})
    child = {"ChildIDNP": "2" * 13, "MotherIDNP": "3" * 13, "HospitalID": 7, "CaseID": 8, "EventReason": "birth"}
    born = record(2, source="urn:ms", type="MS.eCMND.Person.Born", data=child)
    produce(broker, born, "ms")
    produce(broker, invalidated, "asp")
    with consume(broker, client="police") as police, consume(broker, client="cnam") as cnam:
        assert next_event(police)["type"] == "ASP.RST.VP.Invalidated"
        assert {next_event(cnam)["type"], next_event(cnam)["type"]} == {"ASP.RST.VP.Invalidated", "MS.eCMND.Person.Born"}
    produce(broker, record(3, source="urn:asp", type="ASP.RST.VP.Invalidated", data=invalidated["data"]), "asp")
    with consume(broker, client="police", group="other") as police:
        assert [next_event(police)["data"]["Number"] for _ in range(2)] == ["A1", "A1"]
