"""`websockets`, blocking and asyncio, and `aiohttp` consume, confirm, are resumed, and end with the right code."""

import asyncio
import json

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus

from broker import PATIENCE
from events import assert_clear, record, records
from sessions import (
    SUB_PROTOCOL,
    address,
    closing,
    confirm,
    consume,
    consume_async,
    next_event,
    next_ids,
    over_both,
    produce,
)

MIB = 1 << 20


def ids(first, end):
    return [str(number) for number in range(first, end)]


@over_both
def test_a_session_goes_on_after_the_last_confirm_of_the_one_before(broker):
    produce(broker, records(20, partitionkey="k"))
    with consume(broker) as session:
        assert session.subprotocol == SUB_PROTOCOL
        events = [next_event(session) for _ in range(10)]
        assert [event["id"] for event in events] == ids(0, 10)
        assert [event["offset"] for event in events] == ids(1, 11)
        confirm(session, 4)
    with consume(broker) as session:
        again = next_event(session)
        assert (again["id"], again["offset"]) == ("4", "1"), "offsets count from 1 in every session"
        assert next_ids(session, 15) == ids(5, 20)
        confirm(session, 16)
        confirm(session, 16)
        confirm(session, 3)
    produce(broker, record(20, partitionkey="k"))
    with consume(broker) as session:
        assert next_ids(session, 1) == ["20"]


@over_both
def test_what_a_vanished_client_did_not_confirm_comes_again(broker):
    produce(broker, records(10, partitionkey="k"))
    session = consume(broker)
    assert next_ids(session, 10) == ids(0, 10)
    session.socket.close()  # no close frame, no goodbye of TLS
    with consume(broker) as session:
        assert next_ids(session, 10) == ids(0, 10)


@over_both
def test_a_confirm_outlives_the_broker(broker):
    produce(broker, records(10, partitionkey="k"))
    with consume(broker) as session:
        next_ids(session, 10)
        confirm(session, 7)
    broker.stop()
    broker.start()
    with consume(broker) as session:
        assert next_ids(session, 3) == ids(7, 10)


@over_both
def test_stored_events_outlive_a_killed_broker(broker):
    produce(broker, records(100, partitionkey="k"))
    broker.kill()
    broker.start()
    with consume(broker) as session:
        assert next_ids(session, 100) == ids(0, 100)


async def test_the_asyncio_client_gets_events_as_they_are_produced(broker):
    async with consume_async(broker) as session:
        for number in range(20):
            await asyncio.to_thread(produce, broker, record(number))
            event = json.loads(await asyncio.wait_for(session.recv(), PATIENCE))
            assert (event["id"], event["offset"]) == (str(number), str(number + 1))
            await session.send(f"confirm:{event['offset']}")


async def test_aiohttp_consumes_confirms_and_resumes(broker):
    await asyncio.to_thread(produce, broker, records(10, partitionkey="k"))
    connector = aiohttp.TCPConnector(ssl=broker.tls())
    async with aiohttp.ClientSession(connector=connector) as client:
        for expected, confirmed in ((ids(0, 10), "5"), (ids(5, 10), "5")):
            async with client.ws_connect(address(broker, group="g"), protocols=[SUB_PROTOCOL]) as session:
                assert session.protocol == SUB_PROTOCOL
                seen = [json.loads(await session.receive_str(timeout=PATIENCE))["id"] for _ in expected]
                assert seen == expected
                await session.send_str(f"confirm:{confirmed}")
            assert session.close_code == 1000


@over_both
@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        ("confirm:1", 1008, "never sent"),
        ("confirm:", 1008, "whole number"),
        ("confirm:x", 1008, "whole number"),
        ("confirm:-1", 1008, "whole number"),
        ("confirm: 1", 1008, "whole number"),
        ("confirm:99999999999999999999999", 1008, ""),
        ("CONFIRM:1", 1008, "unknown message"),
        ("", 1008, "unknown message"),
        ("👋", 1008, "unknown message"),
        (b"confirm:1", 1003, "text"),
        ("x" * (MIB + 1), 1009, "262144"),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, (str, bytes)) else None,
)
def test_a_message_that_breaks_the_rules_ends_the_session_with_the_reason(shared_broker, message, code, text):
    with consume(shared_broker) as session:
        try:
            session.send(message)
        except ConnectionClosed:
            pass  # the broker need not wait for the end of what is too long
        closed, reason = closing(session)
    assert closed == code
    assert_clear(reason, text)


@over_both
def test_text_that_is_not_utf8_ends_the_session(shared_broker):
    with consume(shared_broker) as session:
        session.send(b"confirm:\xff", text=True)
        assert closing(session)[0] == 1007


@over_both
def test_a_confirm_may_come_in_fragments(broker):
    produce(broker, records(2, partitionkey="k"))
    with consume(broker) as session:
        next_ids(session, 2)
        session.send(iter(["con", "fir", "m:", "1"]))
    with consume(broker) as session:
        assert next_ids(session, 1) == ["1"]


@over_both
@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_the_close_of_a_client_is_answered_in_kind(shared_broker, code):
    session = consume(shared_broker)
    session.close(code, "thank you")
    with pytest.raises(ConnectionClosed) as closed:
        session.recv(timeout=PATIENCE)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == code
    assert not closed.value.rcvd_then_sent


def test_a_stopping_broker_says_that_connecting_again_makes_sense(broker):
    with consume(broker) as one, consume(broker, group="other") as other:
        broker.ask_to_stop()
        for session in (one, other):
            code, reason = closing(session)
            assert code == 1012
            assert_clear(reason, "connect again")
        broker.stop()
    broker.start()
    with consume(broker) as session:
        produce(broker, record(1))
        assert next_ids(session, 1) == ["1"]


@over_both
def test_pings_of_the_blocking_client_are_answered(shared_broker):
    with consume(shared_broker, group="pings") as session:
        for payload in ("", "hello", "x" * 125):
            assert session.ping(payload).wait(PATIENCE), "no pong came"


async def test_pings_of_the_asyncio_client_are_answered(shared_broker):
    async with consume_async(shared_broker, group="pings") as session:
        for _ in range(5):
            latency = await asyncio.wait_for(await session.ping(), PATIENCE)
            assert latency >= 0


async def test_the_broker_pings_and_keeps_who_answers_and_drops_who_does_not(make_broker):
    broker = make_broker(delivery={"ping_interval": '"1s"', "pong_timeout": '"2s"'})
    connector = aiohttp.TCPConnector(ssl=broker.tls())
    async with aiohttp.ClientSession(connector=connector) as client:
        options = {"protocols": [SUB_PROTOCOL], "autoping": False}
        mute = await client.ws_connect(address(broker, group="mute"), **options)
        alive = await client.ws_connect(address(broker, group="alive"), **options)
        pings = 0
        while not mute.closed:
            message = await alive.receive(timeout=PATIENCE)
            assert message.type is aiohttp.WSMsgType.PING
            await alive.pong(message.data)
            pings += 1
            if pings == 4:
                break
        message = await mute.receive(timeout=PATIENCE)
        assert message.type is aiohttp.WSMsgType.PING
        message = await mute.receive(timeout=PATIENCE)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)
        assert_clear(message.extra, "ping")
        await asyncio.to_thread(produce, broker, record(1))
        message = await alive.receive(timeout=PATIENCE)
        while message.type is aiohttp.WSMsgType.PING:
            await alive.pong(message.data)
            message = await alive.receive(timeout=PATIENCE)
        assert json.loads(message.data)["id"] == "1"
        await alive.close()
        await mute.close()


@over_both
@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"group": ""}, "group"),
        ({"group": "x" * 201}, "group"),
        ({"group": "a\nb"}, "group"),
        ({"events": "maybe"}, "events"),
        ({"colour": "red"}, "colour"),
    ],
    ids=["empty_group", "long_group", "control_character", "not_a_flag", "unknown"],
)
def test_a_query_that_means_nothing_is_refused_with_the_reason(shared_broker, query, text):
    with pytest.raises(InvalidStatus) as refused:
        consume(shared_broker, query=query)
    assert refused.value.response.status_code == 400
    assert_clear(refused.value.response.body.decode(), text)


@over_both
@pytest.mark.parametrize("offered", [None, ["graphql-ws"], ["CloudEvents.JSON"]])
def test_the_sub_protocol_must_be_offered(shared_broker, offered):
    with pytest.raises(InvalidStatus) as refused:
        consume(shared_broker, subprotocols=offered)
    assert refused.value.response.status_code == 400
    assert_clear(refused.value.response.body.decode(), SUB_PROTOCOL)


def test_one_of_several_sub_protocols_is_chosen_and_compression_declined(shared_broker):
    with consume(shared_broker, subprotocols=["other", SUB_PROTOCOL], compression="deflate") as session:
        assert session.subprotocol == SUB_PROTOCOL
        assert session.protocol.extensions == []


@over_both
def test_a_session_without_ordinary_events_gets_none(broker):
    produce(broker, record(1))
    with consume(broker, query={"events": "false"}) as quiet:
        with consume(broker) as usual:
            assert next_ids(usual, 1) == ["1"]
        # The answer to a ping comes behind everything sent before it.
        assert quiet.ping().wait(PATIENCE)
        with pytest.raises(TimeoutError):
            quiet.recv(timeout=0)
        quiet.close()
        with pytest.raises(ConnectionClosedOK):
            quiet.recv(timeout=PATIENCE)
