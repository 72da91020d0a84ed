"""RabbitMQ, whose quorum queues flush before they confirm."""

from .server import Server, free_port, listens

PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class RabbitMq(Server):
    user = "rabbitmq"

    def start(self):
        port, mapper, distribution = free_port(), free_port(), free_port()
        config = self.write("rabbitmq.conf", f"""
listeners.tcp = none
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {self.file("ca.pem")}
ssl_options.certfile = {self.file("server.pem")}
ssl_options.keyfile = {self.file("server.key")}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
log.console = true
log.console.level = warning
""")
        environment = {
            "HOME": str(self.directory),
            "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.write("plugins", "[].\n")),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "store"),
            "RABBITMQ_LOG_BASE": str(self.directory / "logs"),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        # Started here, because the one that RabbitMQ would start goes on when RabbitMQ has ended.
        self.spawn(["epmd"], environment)
        self.wait(lambda: listens(mapper))
        self.spawn([PROGRAM], environment)
        self.wait(lambda: listens(port))
        self.url = f"amqps://guest:guest@localhost:{port}/%2f"
