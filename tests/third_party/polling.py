"""A consumer instance by long polling, over whichever version of HTTP the test speaks."""

from contextlib import contextmanager

from sessions import producer, send

CONSUMERS = "/ce/consumers"


class Instance:
    """Each call may go over another connection."""

    def __init__(self, broker, session, **query):
        self.broker = broker
        answer = send(broker, session, "POST", CONSUMERS, params=query)
        assert (answer.status_code, answer.content) == (201, b""), answer.text
        self.url = answer.headers["location"]
        assert self.url.startswith(broker.url + "/"), "the address is absolute, and is where the client came to"
        self.path = self.url.removeprefix(broker.url)

    def get(self, session, what, **query):
        return send(self.broker, session, "GET", f"{self.path}/{what}", params=query)

    def event(self, session, **query):
        answer = self.get(session, "event", **query)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/cloudevents+json"
        return answer.json()

    def events(self, session, **query):
        answer = self.get(session, "events", **query)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/cloudevents-batch+json"
        return answer.json()

    def confirm(self, session, **query):
        answer = send(self.broker, session, "POST", f"{self.path}/confirm", params=query)
        assert (answer.status_code, answer.content) == (204, b""), answer.text

    def report_dead(self, session, body, headers):
        return send(self.broker, session, "POST", f"{self.path}/dead", body, headers)

    def delete(self, session):
        answer = send(self.broker, session, "DELETE", self.path)
        assert (answer.status_code, answer.content) == (204, b""), answer.text


@contextmanager
def instance(broker, client="demo", **query):
    """An instance and a session of its client."""
    with producer(broker, client) as session:
        yield Instance(broker, session, **query), session
