"""Keep-alive and pipelining, seen from the clients' side of the connection."""

import asyncio
import socket

import aiohttp
import h11
import httpx
import pytest

from broker import PATIENCE
from events import EVENT, RAW, STRUCTURED, assert_stored, encode, raw_headers, record
from sessions import consume, next_ids, post, producer

ROUNDS = 30


def test_requests_sends_all_over_one_connection(shared_broker):
    with producer(shared_broker) as session:
        for number in range(ROUNDS):
            assert_stored(post(shared_broker, session, EVENT, encode(record(number)), STRUCTURED))
        pools = session.get_adapter(shared_broker.url).poolmanager.pools
        (pool,) = [pools.get(key) for key in pools.keys()]
        assert (pool.num_connections, pool.num_requests) == (1, ROUNDS)


def test_a_refused_request_without_a_body_does_not_cost_the_connection(shared_broker):
    connected = []
    with httpx.Client(verify=shared_broker.tls(), trust_env=False, timeout=PATIENCE) as client:
        trace = {"trace": lambda name, _: connected.append(name) if name == "connection.connect_tcp.started" else None}
        for _ in range(5):
            assert client.get(shared_broker.url + "/nowhere", extensions=trace).status_code == 404
            body = encode(record(1, data={"number": -1, "name": "x"}))
            answer = client.post(shared_broker.url + EVENT, content=body, headers=STRUCTURED, extensions=trace)
            assert answer.status_code == 422
            answer = client.post(shared_broker.url + EVENT, content=encode(record(1)), headers=STRUCTURED, extensions=trace)
            assert_stored(answer)
    assert len(connected) == 1


async def test_aiohttp_reuses_a_few_connections_for_many_requests_at_once(shared_broker):
    opened, reused = [], []
    trace = aiohttp.TraceConfig()

    async def on_open(*_):
        opened.append(1)

    async def on_reuse(*_):
        reused.append(1)

    trace.on_connection_create_end.append(on_open)
    trace.on_connection_reuseconn.append(on_reuse)
    connector = aiohttp.TCPConnector(ssl=shared_broker.tls(), limit=4)
    timeout = aiohttp.ClientTimeout(PATIENCE)
    async with aiohttp.ClientSession(connector=connector, trace_configs=[trace], timeout=timeout) as session:

        async def one(number):
            async with session.post(shared_broker.url + EVENT, data=encode(record(number)), headers=STRUCTURED) as answer:
                return answer.status

        statuses = await asyncio.gather(*(one(number) for number in range(120)))
    assert statuses == [202] * 120
    assert len(opened) <= 4 and len(opened) + len(reused) == 120


@pytest.mark.parametrize("piece", [None, 1, 1000], ids=["at_once", "byte_by_byte", "in_pieces"])
def test_pipelined_requests_are_answered_in_their_order(broker, piece):
    """Requests written by `h11` one behind the other before any answer is read, however the bytes are cut."""
    bodies = [(202, encode(record(number, partitionkey="k"))) for number in range(6)]
    bodies[2] = (422, encode(record(2, data={"number": 2})))
    bodies[4] = (400, b"{")
    clients = [h11.Connection(h11.CLIENT) for _ in bodies]
    sent = b"".join(written(client, broker, body) for client, (_, body) in zip(clients, bodies))
    with socket.create_connection(("localhost", broker.port), timeout=PATIENCE) as plain:
        with broker.tls().wrap_socket(plain, server_hostname="localhost") as stream:
            step = piece or len(sent)
            for at in range(0, len(sent), step):
                stream.sendall(sent[at : at + step])
            rest, statuses = b"", []
            for client in clients:
                status, rest = read_answer(client, stream, rest)
                statuses.append(status)
    assert statuses == [status for status, _ in bodies]
    assert rest == b""
    with consume(broker) as session:
        assert next_ids(session, 4) == ["0", "1", "3", "5"]


def written(client, broker, body):
    """The bytes of a produce request."""
    headers = [("Host", f"localhost:{broker.port}"), ("Content-Length", str(len(body))), *STRUCTURED.items()]
    request = h11.Request(method="POST", target=EVENT, headers=headers)
    return client.send(request) + client.send(h11.Data(body)) + client.send(h11.EndOfMessage())


def read_answer(client, stream, received):
    """The status of the next answer, and what came behind it."""
    if received:  # for h11 no bytes would mean the end of the connection
        client.receive_data(received)
    status = None
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            chunk = stream.recv(65536)
            assert chunk, "the broker closed the connection"
            client.receive_data(chunk)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.EndOfMessage):
            return status, client.trailing_data[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_listener_is_reached_by_either_family(make_broker, host):
    try:
        socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError:
        pytest.skip(f"this machine has no {host}")
    broker = make_broker(server={"listen": '["127.0.0.1:0", "[::1]:0"]' if ":" in host else '["127.0.0.1:0"]'})
    with socket.create_connection((host, broker.port), timeout=PATIENCE) as plain:
        with broker.tls().wrap_socket(plain, server_hostname="localhost") as stream:
            stream.sendall(b"GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert stream.recv(1 << 16).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), (["h2"], "h2"), ([], None)],
)
def test_alpn_chooses_the_version_of_http(shared_broker, offered, agreed):
    context = shared_broker.tls()
    if offered:
        context.set_alpn_protocols(offered)
    with socket.create_connection(("localhost", shared_broker.port), timeout=PATIENCE) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as stream:
            assert stream.selected_alpn_protocol() == agreed
            if agreed != "h2":
                stream.sendall(b"GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert stream.recv(1 << 16).startswith(b"HTTP/1.1 404 ")


def test_a_client_that_asks_for_it_gets_its_connection_closed(shared_broker):
    with httpx.Client(verify=shared_broker.tls(), trust_env=False, timeout=PATIENCE) as client:
        headers = {**raw_headers("1", "text/plain"), "Connection": "close"}
        answer = client.post(shared_broker.url + RAW, content=b"x", headers=headers)
        assert_stored(answer)
        assert answer.headers["connection"] == "close"


def test_answers_carry_a_length_and_a_date(shared_broker):
    with producer(shared_broker) as session:
        answer = post(shared_broker, session, EVENT, encode(record(1)), STRUCTURED)
        assert answer.headers["content-length"] == "0"
        assert answer.headers["date"].endswith(" GMT")
