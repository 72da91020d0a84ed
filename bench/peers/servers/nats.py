"""NATS with JetStream, which flushes each message before it is acknowledged."""

from pathlib import Path

from .server import Server, free_port, listens

# Where `setup` puts it. Debian's is too old to flush before it acknowledges.
PROGRAM = Path(__file__).resolve().parents[3] / "target/peers/venv/bin/nats-server"


class Nats(Server):
    def start(self):
        port = free_port()
        config = self.write("nats.conf", f"""
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{self.directory}/store", max_file_store: 40GB, sync_interval: always }}
tls {{
  cert_file: "{self.file("server.pem")}"
  key_file: "{self.file("server.key")}"
  ca_file: "{self.file("ca.pem")}"
  verify: true
}}
""")
        self.spawn([PROGRAM, "-c", config])
        self.wait(lambda: listens(port))
        self.url = f"tls://localhost:{port}"
