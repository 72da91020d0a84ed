"""The workloads, put on a broker while the machine is watched."""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import machine

EVENT_BYTES = 1024
WARM_UP_S = 2.0
# From the start of a load generator until all of its connections are open, at most: its own measurement begins a
# moment later than WARM_UP_S, so the machine is watched within, not at the same moments.
CONNECTING_S = 1.0
# How long the load goes on after the measurement, while memory is read.
TAIL_S = 1.0
# Seconds that a load generator may take beyond its plan.
PATIENCE = 60


@dataclass(frozen=True)
class Work:
    """What `nistru-peers` and `nistru-loadtest` are asked for."""

    producers: int
    batch: int = 1
    consumers: int = 0
    rate: int | None = None

    def arguments(self):
        arguments = ["--producers", self.producers, "--batch", self.batch, "--consumers", self.consumers]
        return arguments + (["--rate", self.rate] if self.rate else [])


WORKS = {
    "w1a": Work(producers=16),
    "w1b": Work(producers=64),
    "w2": Work(producers=4, batch=100),
    "w3a": Work(producers=2, batch=100, consumers=2),
    "w3b": Work(producers=2, batch=100, consumers=2, rate=10_000),
}


@dataclass(frozen=True)
class Programs:
    """What was built for the measurement."""

    nistru: Path
    loadtest: Path
    client: Path

    def all(self):
        return [self.nistru, self.loadtest, self.client]


def on_peer(programs, name, server, work, seconds):
    return [
        programs.client, name, "--url", server.url, "--pki", server.certificates, *work.arguments(), "--bytes", EVENT_BYTES,
        "--warm-up", WARM_UP_S, "--duration", seconds, "--tail", TAIL_S,
    ]  # fmt: skip


def on_nistru(programs, server, work, seconds):
    # It has no tail, but as it starts its measurement later than the watch, memory is read under load all the same.
    return [
        programs.loadtest, "--url", server.url, "--dir", server.dev_directory, *work.arguments(), "--bytes", EVENT_BYTES,
        "--warm-up", WARM_UP_S, "--duration", seconds, "--json", "-",
    ]  # fmt: skip


def measure(server, command, seconds, disk):
    """Runs the load of `command` on the server: rates and latencies as it tells them, usage as the kernel does."""
    command = [str(word) for word in command]
    idle_mib = machine.pss_mib(server.pids)
    load = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        start = time.monotonic()
        look = lambda: machine.Usage.now(server.pids, load.pid, disk)
        _go_on(load, start + WARM_UP_S + CONNECTING_S)
        before = look()
        _go_on(load, start + WARM_UP_S + seconds)
        used = look().since(before).rates()
        loaded_mib = machine.pss_mib(server.pids)
        output, errors = load.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired as late:
        raise RuntimeError(f"{command[0]} does not end") from late
    finally:
        load.kill()
        load.wait()
    if load.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with code {load.returncode}: {errors[-2000:]}{output[-2000:]}")
    report = json.loads(output)
    return result(report, used, idle_mib, loaded_mib)


def _go_on(load, until):
    """Waits until then while the load goes on."""
    try:
        load.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return
    raise RuntimeError(f"the load ended early: {load.stderr.read()[-2000:]}{load.stdout.read()[-2000:]}")


def result(report, used, idle_mib, loaded_mib):
    """What one run found."""
    acknowledged, consumed = _flow(report["acknowledged"]), report["consumed"] and _flow(report["consumed"])
    events_per_s = acknowledged["events_per_s"]
    if not events_per_s:
        raise RuntimeError("not one event was acknowledged within the measurement")
    return {
        "events_per_s": (consumed or acknowledged)["events_per_s"],
        "acknowledged": acknowledged,
        "consumed": consumed,
        "idle_mib": idle_mib,
        "loaded_mib": loaded_mib,
        "server_us_per_event": used["server_cores"] * 1e6 / events_per_s,
        "load_us_per_event": used["load_cores"] * 1e6 / events_per_s,
        "disk_bytes_per_byte": used["disk_bytes_per_s"] / events_per_s / EVENT_BYTES,
        **used,
    }


def _flow(flow):
    """What is kept of a flow; `nistru-loadtest` tells more."""
    return {name: flow[name] for name in ("events_per_s", "p50_ms", "p99_ms", "p999_ms", "max_ms")}
