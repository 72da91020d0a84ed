"""A real broker in its own process and directory, as `nistru dev` sets it up."""

import os
import queue
import re
import signal
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

# Seconds that anything may take that should take a moment. Long, because test machines are busy.
PATIENCE = 30

HTTP_1_1 = "HTTP/1.1"
HTTP_2 = "HTTP/2"

ROOT = Path(__file__).resolve().parents[2]

# Small files: a broker of its own for a test should not cost a gigabyte of disk.
SETTINGS = {
    "server": {"listen": '["127.0.0.1:0"]', "max_connections_per_address": "2000"},
    "tls": {"certificate": '"pki/server.pem"', "key": '"pki/server.key"', "client_ca": '["pki/ca.pem"]'},
    "storage": {
        "dir": '"data"',
        "segment_bytes": '"1 MiB"',
        "journal_file_bytes": '"16 MiB"',
        "min_free_bytes": '"64 MiB"',
    },
    "delivery": {},
    "polling": {},
    "registry": {"dir": '"registry"'},
    "admin": {"listen": '["127.0.0.1:0"]'},
    "log": {"format": '"text"'},
}


def binary() -> Path:
    """The program under test: the environment's `NISTRU`, or the debug build."""
    path = Path(os.environ.get("NISTRU") or ROOT / "target" / "debug" / "nistru").resolve()
    assert path.is_file(), f"{path} is missing: build it with `cargo build`, or name another in NISTRU"
    return path


class Broker:
    """`nistru dev --dir TMP --port 0`. Its directory goes away with it."""

    # Which version of HTTP the clients of a test speak; see `sessions.over_both`.
    protocol = HTTP_1_1

    def __init__(self, settings=None):
        self._directory = tempfile.TemporaryDirectory(prefix="nistru-third-party-")
        self.directory = Path(self._directory.name)
        self.process = None
        self.asked_to_stop = False
        self.port = None
        if settings is not None:
            self.configure(settings)

    def configure(self, settings):
        """Writes `nistru.toml`: small files, and these settings by section."""
        text = ""
        for section, usual in SETTINGS.items():
            text += f"[{section}]\n"
            for key, value in {**usual, **settings.get(section, {})}.items():
                text += f"{key} = {value}\n"
        (self.directory / "nistru.toml").write_text(text)

    def start(self):
        """Starts the process and waits until it says that it serves."""
        self.asked_to_stop = False
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [binary(), "dev", "--dir", self.directory, "--port", "0"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        lines = queue.Queue()
        threading.Thread(target=_pass_lines_on, args=(self.process.stdout, lines), daemon=True).start()
        deadline = time.monotonic() + PATIENCE
        try:
            while True:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
                assert line, f"the broker ended before it was ready:\n{self.log()}"
                if line.startswith("ready https://localhost:"):
                    self.port = int(line.rsplit(":", 1)[1])
                    return self
        except (queue.Empty, AssertionError) as error:
            self.kill()
            raise AssertionError(f"the broker does not start:\n{self.log()}") from error

    def ask_to_stop(self):
        """Sends SIGTERM to the process, and to nothing else. Once: a second one would mean impatience."""
        if not self.asked_to_stop:
            self.process.send_signal(signal.SIGTERM)
            self.asked_to_stop = True

    def stop(self):
        """Stops the process; it must end well, soon, and without having panicked."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.ask_to_stop()
        try:
            code = self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the broker did not stop within {PATIENCE} s:\n{self.log()}") from None
        self.process = None
        assert code == 0, f"the broker ended with code {code}:\n{self.log()}"
        assert "panicked" not in self.log(), f"the broker panicked:\n{self.log()}"

    def kill(self):
        """Ends the process as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def discard(self):
        """Removes the directory."""
        self.kill()
        self._directory.cleanup()

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    @property
    def log_file(self):
        return self.directory / "broker.log"

    def log(self):
        return self.log_file.read_text(errors="replace")

    def pki(self, name) -> Path:
        return self.directory / "pki" / name

    @property
    def authority(self) -> str:
        return str(self.pki("ca.pem"))

    def pair(self, client):
        """The certificate and key files of a client, by its name; a pair of files stands for itself."""
        if isinstance(client, tuple):
            return client
        return str(self.pki(f"{client}.pem")), str(self.pki(f"{client}.key"))

    def tls(self, client="demo", version=None) -> ssl.SSLContext:
        """How `client` talks TLS to the broker; `None` shows no certificate."""
        return tls(self.authority, self.pair(client) if client else None, version)

    def metric(self, name) -> float:
        """The sum over all labels of a metric, by its name without the prefix."""
        address = re.findall(r'serving .*admin="?([^" ]+)', self.log())[-1]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"nistru_{name}[ {{]", line))

    def anonymous_memory(self) -> int:
        """Bytes of memory of the process that are not files."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return int(fields["RssAnon"].split()[0]) * 1024


def tls(authority, pair=None, version=None) -> ssl.SSLContext:
    """A context that trusts `authority`, shows `pair`, and speaks only `version` if one is given."""
    context = ssl.create_default_context(cafile=authority)
    if pair:
        context.load_cert_chain(*pair)
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def wait_until(what, look):
    """Waits until `look` finds something true, and gives it."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.02)
    return found


def _pass_lines_on(stream, lines):
    with stream:
        for line in stream:
            lines.put(line)
    lines.put("")
