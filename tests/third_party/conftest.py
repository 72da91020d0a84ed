"""Real third-party clients against a real broker: `nistru dev` in a directory of its own."""

import pytest

from broker import HTTP_1_1, Broker


@pytest.fixture(autouse=True)
def protocol(request, monkeypatch):
    """The version of HTTP that the clients of the test speak; see `sessions.over_both`."""
    monkeypatch.setattr(Broker, "protocol", getattr(request, "param", HTTP_1_1))
    return Broker.protocol


@pytest.fixture
def make_broker():
    """Starts brokers with settings of their own; all must stop well."""
    brokers = []

    def make(**settings):
        brokers.append(Broker(settings))
        return brokers[-1].start()

    yield make
    _end(brokers)


@pytest.fixture
def broker(make_broker):
    """A broker without events."""
    return make_broker()


@pytest.fixture(scope="module")
def shared_broker():
    """A broker with the settings that `nistru dev` writes, for tests that do not look at all of its events."""
    broker = Broker()
    broker.start()
    yield broker
    _end([broker])


def _end(brokers):
    try:
        for broker in brokers:
            broker.stop()
    finally:
        for broker in brokers:
            broker.discard()
