"""Many consumers at once: groups of one and of many, members that come and go, one that stalls beside one that does not."""

import asyncio
import json
from collections import Counter, defaultdict

import pytest

from broker import PATIENCE
from events import BLOB, record, records
from sessions import confirm, consume, consume_async, next_event, next_ids, over_both, produce

MIB = 1 << 20


async def take(session, count):
    """Receives and confirms the next events."""
    events = []
    while len(events) < count:
        events.append(json.loads(await asyncio.wait_for(session.recv(), PATIENCE)))
        await session.send(f"confirm:{events[-1]['offset']}")
    return events


@over_both
def test_every_group_gets_every_event_also_the_group_without_a_name(broker):
    produce(broker, records(30, partitionkey="k"))
    expected = [str(number) for number in range(30)]
    for group in ("a", "b", "Ștampilă și spații / ? & 🚗"):
        with consume(broker, group=group) as session:
            assert next_ids(session, 30) == expected
            confirm(session, 30)
    with consume(broker, group=None) as session:
        assert next_ids(session, 30) == expected
        confirm(session, 30)
    with consume(broker, group="~default") as session:
        produce(broker, record(30, partitionkey="k"))
        assert next_ids(session, 1) == ["30"]


async def test_a_hundred_consumers_of_their_own_groups_get_everything(broker):
    await asyncio.to_thread(produce, broker, records(50))
    door = asyncio.Semaphore(20)

    async def consumer(number):
        async with door:
            session = await consume_async(broker, group=f"g{number}")
        async with session:
            events = await take(session, 50)
            everyone_has_the_past.add(number)
            events += await take(session, 50)
            return sorted(int(event["id"]) for event in events)

    everyone_has_the_past = set()
    consumers = [asyncio.create_task(consumer(number)) for number in range(100)]
    async with asyncio.timeout(3 * PATIENCE):
        while len(everyone_has_the_past) < 100:
            done = [task for task in consumers if task.done()]
            for task in done:
                task.result()
            await asyncio.sleep(0.02)
    await asyncio.to_thread(produce, broker, [record(number) for number in range(50, 100)])
    for seen in await asyncio.gather(*consumers):
        assert seen == list(range(100))


@pytest.mark.parametrize("members", [2, 3, 5, 12])
async def test_members_of_a_group_share_the_events_and_keep_each_key_in_order(broker, members):
    sessions = [await consume_async(broker, group="shared") for _ in range(members)]
    count, keys = 600, 300
    batch = [record(number, partitionkey=f"k{number % keys}") for number in range(count)]
    seen, order, by_member = Counter(), defaultdict(list), Counter()
    finished = asyncio.Event()

    async def member(number, session):
        async for message in session:
            event = json.loads(message)
            seen[event["id"]] += 1
            by_member[number] += 1
            order[event["partitionkey"]].append(event["data"]["number"])
            await session.send(f"confirm:{event['offset']}")
            if len(seen) == count:
                finished.set()

    tasks = [asyncio.create_task(member(number, session)) for number, session in enumerate(sessions)]
    for start in range(0, count, 100):
        await asyncio.to_thread(produce, broker, batch[start : start + 100])
    await asyncio.wait_for(finished.wait(), PATIENCE)
    for session in sessions:
        await session.close()
    await asyncio.gather(*tasks)
    assert set(seen.values()) == {1}, "an event came twice to a group that confirms at once"
    assert set(by_member) == set(range(members)), "a member got nothing"
    assert all(numbers == sorted(numbers) for numbers in order.values())


@over_both
def test_what_a_leaving_member_did_not_confirm_goes_to_the_one_that_stays(broker):
    with consume(broker) as first:
        produce(broker, records(60))
        assert len(next_ids(first, 60)) == 60
        with consume(broker) as second:
            first.close()
            assert sorted(map(int, next_ids(second, 60))) == list(range(60))


@over_both
def test_more_members_than_partitions_wait_their_turn(broker):
    sessions = [consume(broker) for _ in range(13)]
    try:
        for session in sessions[:12]:
            session.close()
        produce(broker, records(40))
        assert sorted(map(int, next_ids(sessions[12], 40))) == list(range(40))
    finally:
        for session in sessions:
            session.close()


def test_a_stalled_consumer_costs_no_memory_and_disturbs_nobody(broker):
    """24 MiB for a consumer that does not read, next to one that does."""
    with consume(broker, group="stalled", max_queue=1) as stalled, consume(broker, group="quick") as quick:
        # The first megabytes make the broker's heap as large as the requests need it.
        first = pass_by(broker, quick, 0, 300)
        before = broker.anonymous_memory()
        last = pass_by(broker, quick, first, 500)
        grown = broker.anonymous_memory() - before
        assert grown < 12 * MIB, f"the broker grew by {grown} bytes"
        for expected in range(last):
            event = next_event(stalled)
            assert event["id"] == str(expected)
            confirm(stalled, event["offset"])


def pass_by(broker, session, first, count):
    """Events of 48 KB, one behind the other, from producer to consumer; gives the number of the next one."""
    for start in range(first, first + count, 20):
        batch = [record(n, type=BLOB, data="y" * 48_000, partitionkey="k") for n in range(start, start + 20)]
        produce(broker, batch)
        assert next_ids(session, 20) == [event["id"] for event in batch]
        confirm(session, start + 20)
    return first + count


def test_a_late_consumer_reads_from_all_segments_however_long_ago_they_were_filled(broker):
    """Some twenty segments of 1 MiB; those at the front are no longer in memory."""
    for start in range(0, 400, 20):
        produce(broker, [record(n, type=BLOB, data="y" * 48_000, partitionkey="k") for n in range(start, start + 20)])
    with consume(broker) as session:
        for expected in range(400):
            event = next_event(session)
            assert event["id"] == str(expected)
            confirm(session, event["offset"])


@over_both
def test_the_window_of_unconfirmed_events_holds_the_rest_back(make_broker):
    broker = make_broker(delivery={"window_events": "10"})
    produce(broker, records(25, partitionkey="k"))
    with consume(broker) as session:
        assert next_ids(session, 10) == [str(number) for number in range(10)]
        # The answer to a ping comes behind everything sent before it.
        assert session.ping().wait(PATIENCE)
        with pytest.raises(TimeoutError):
            session.recv(timeout=0)
        confirm(session, 10)
        assert next_ids(session, 10) == [str(number) for number in range(10, 20)]
