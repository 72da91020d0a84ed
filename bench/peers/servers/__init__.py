"""Brokers in processes of their own: durable, on loopback, with client certificates."""

from .nats import Nats
from .nistru import Nistru
from .postgresql import Postgresql
from .rabbitmq import RabbitMq
from .redis import Redis

# By the names that the command line and the load know.
PEERS = {"redis": Redis, "postgresql": Postgresql, "nats": Nats, "rabbitmq": RabbitMq}

__all__ = ["PEERS", "Nistru"]
