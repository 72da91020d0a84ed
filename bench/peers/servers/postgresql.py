"""PostgreSQL, whose commits wait for the disk."""

import re
import signal
import subprocess
from pathlib import Path

import certificates

from .server import Server, free_port


class Postgresql(Server):
    user = "postgres"
    # Ends sessions at once, then shuts down in good order.
    stop_signal = signal.SIGINT

    def start(self):
        port = free_port()
        programs, data = installed(), self.directory / "data"
        self.run([programs / "initdb", "-D", data, "-U", certificates.CLIENT, "-A", "trust", "--no-locale", "-E", "UTF8"])
        self.write("data/pg_hba.conf", "hostssl all all 127.0.0.1/32 cert\n")
        self.write("data/postgresql.conf", f"""
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
shared_buffers = 2GB
wal_buffers = 64MB
max_wal_size = 8GB
checkpoint_timeout = 15min
fsync = on
synchronous_commit = on
log_min_messages = warning
ssl = on
ssl_cert_file = '{self.file("server.pem")}'
ssl_key_file = '{self.file("server.key")}'
ssl_ca_file = '{self.file("ca.pem")}'
""")
        self.spawn([programs / "postgres", "-D", data])
        self.wait(lambda: accepts(programs, port))
        self.url = (
            f"host=localhost hostaddr=127.0.0.1 port={port} user={certificates.CLIENT} dbname=postgres sslmode=require"
        )


def accepts(programs, port):
    """Whether it has started up; it listens before."""
    command = [programs / "pg_isready", "--quiet", "--host", "127.0.0.1", "--port", str(port)]
    return subprocess.run(command).returncode == 0


def installed():
    """The programs of the newest version, where Debian puts them."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = max(versions, key=lambda path: int(re.search(r"postgresql/(\d+)", str(path))[1]), default=None)
    if newest is None:
        raise RuntimeError("PostgreSQL is not installed: run bench/peers/setup")
    return newest.parent
