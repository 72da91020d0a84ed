"""Redis, whose append-only file is flushed before each answer."""

from .server import Server, free_port, listens


class Redis(Server):
    user = "redis"

    def start(self):
        port = free_port()
        config = self.write("redis.conf", f"""
bind 127.0.0.1
port 0
tls-port {port}
tls-cert-file {self.file("server.pem")}
tls-key-file {self.file("server.key")}
tls-ca-cert-file {self.file("ca.pem")}
tls-auth-clients yes
dir {self.directory}
save ""
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
""")
        self.spawn(["redis-server", config])
        self.wait(lambda: listens(port))
        self.url = f"rediss://localhost:{port}/"
