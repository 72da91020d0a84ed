"""A broker in a process of its own, with a fresh directory."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

# Seconds that a broker may take to listen, and to end.
PATIENCE = 60


class Server:
    """One broker; subclasses say how to start it. Used with `with`, which stops it and removes its directory."""

    # Who runs it when root does not want to: brokers refuse root, or warn.
    user = None
    # How to ask it to end.
    stop_signal = signal.SIGTERM

    def __init__(self, directory, certificates):
        self.directory = Path(directory)
        self.certificates = certificates
        self.processes = []
        self.url = None

    @property
    def pids(self):
        return [process.pid for process in self.processes]

    @property
    def log(self):
        return self.directory / "log"

    def file(self, name):
        """A file of the certificates, as the broker reads it."""
        return self.directory / "pki" / name

    def start(self):
        """Starts the processes, sets `url`, and returns when clients can connect."""
        raise NotImplementedError

    def __enter__(self):
        self.directory.mkdir()
        shutil.copytree(self.certificates, self.directory / "pki")
        self.own()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            for process in reversed(self.processes):
                self._stop(process)
        finally:
            shutil.rmtree(self.directory)

    def own(self):
        """Gives the directory to the user that runs the broker, keys readable for nobody else."""
        for key in self.directory.glob("pki/*.key"):
            key.chmod(0o600)
        if self.account:
            for path in [self.directory, *self.directory.rglob("*")]:
                shutil.chown(path, self.account, self.account)

    @property
    def account(self):
        return self.user if os.geteuid() == 0 else None

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text)
        if self.account:
            shutil.chown(path, self.account, self.account)
        return path

    def spawn(self, command, environment=None):
        """Starts a process of the broker; its output goes to the log."""
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Of its own group, so that the terminal's interrupt reaches this program alone, which then stops it.
                start_new_session=True,
                **self._as_user(),
            )
        self.processes.append(process)

    def run(self, command):
        """Runs a command as the broker's user, which must succeed."""
        with open(self.log, "ab") as log:
            done = subprocess.run(command, cwd=self.directory, stdout=log, stderr=log, **self._as_user())
        if done.returncode != 0:
            raise self.failed(f"{command[0]} ended with code {done.returncode}")

    def _as_user(self):
        return {"user": self.account, "group": self.account, "extra_groups": []} if self.account else {}

    def wait(self, ready):
        """Waits until `ready` finds something true, and gives it."""
        deadline = time.monotonic() + PATIENCE
        while not (found := ready()):
            self.check(deadline)
            time.sleep(0.02)
        return found

    def check(self, deadline):
        """Fails when a process has ended or the time is over."""
        if any(process.poll() is not None for process in self.processes):
            raise self.failed("ended before it was ready")
        if time.monotonic() > deadline:
            raise self.failed(f"not ready within {PATIENCE} s")

    def failed(self, what):
        log = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
        return RuntimeError(f"{type(self).__name__}: {what}\n{log}")

    def _stop(self, process):
        if process.poll() is None:
            process.send_signal(self.stop_signal)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def listens(port):
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
