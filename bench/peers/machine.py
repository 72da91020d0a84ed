"""What brokers use of the machine, from /proc and /sys: the same measure for all of them."""

import datetime
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SECTOR_BYTES = 512
# Indices in /sys/block/*/stat (Documentation/block/stat.rst of the kernel).
SECTORS_WRITTEN = 6
FLUSHES = 15


class Disk:
    """The device that holds a directory."""

    def __init__(self, directory):
        number = os.stat(directory).st_dev
        device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
        # Flushes are counted for the whole device only.
        self.stat = (device.parent if (device / "partition").exists() else device) / "stat"
        if not self.stat.is_file():
            raise SystemExit(f"peers: {directory} is on no block device, so what is written there cannot be counted")

    def counters(self):
        """Bytes written and flushes, so far."""
        fields = self.stat.read_text().split()
        return int(fields[SECTORS_WRITTEN]) * SECTOR_BYTES, int(fields[FLUSHES])


@dataclass
class Usage:
    """What was used up to a moment, in seconds, bytes and counts; or between two."""

    time: float
    server_cpu: float
    load_cpu: float
    machine_cpu: float
    disk_bytes: int
    flushes: int

    @classmethod
    def now(cls, server_pids, load_pid, disk):
        processes = _processes()
        return cls(
            time.monotonic(),
            _cpu(processes, tree(processes, server_pids)),
            _cpu(processes, tree(processes, [load_pid])),
            _machine_cpu(),
            *disk.counters(),
        )

    def since(self, earlier):
        return Usage(*(getattr(self, name) - getattr(earlier, name) for name in self.__dataclass_fields__))

    def rates(self):
        """Cores, bytes and flushes a second. `other_cores` tells how quiet the machine was."""
        return {
            "server_cores": self.server_cpu / self.time,
            "load_cores": self.load_cpu / self.time,
            "other_cores": (self.machine_cpu - self.server_cpu - self.load_cpu) / self.time,
            "disk_bytes_per_s": self.disk_bytes / self.time,
            "flushes_per_s": self.flushes / self.time,
        }


def pss_mib(pids):
    """Memory of the processes and their descendants, with what they share counted once."""
    kib = 0
    for pid in tree(_processes(), pids):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has just ended.
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


def tree(processes, roots):
    """Those of `roots` that are alive, and all their descendants."""
    found = [pid for pid in roots if pid in processes]
    for parent in found:
        found += [pid for pid, process in processes.items() if process.parent == parent]
    return found


@dataclass
class Process:
    parent: int
    cpu: float


def _processes():
    """All processes by their id."""
    found = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                found[int(directory.name)] = parse_stat((directory / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                pass  # It has just ended.
    return found


def parse_stat(text):
    """/proc/PID/stat; the second field, a name in brackets, may contain anything."""
    fields = text.rpartition(")")[2].split()
    # Its own time, and that of children that have ended.
    return Process(int(fields[1]), sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_S)


def _cpu(processes, pids):
    return sum(processes[pid].cpu for pid in pids)


def _machine_cpu():
    """All but idle time and waiting."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, _first_line("/proc/stat").split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def _first_line(path):
    with open(path) as file:
        return file.readline()


def probe_flush_ms(directory, count=200):
    """What the disk takes to append 1 KiB and flush it for a lone writer: median and 99th percentile."""
    path = Path(directory) / "probe"
    times = []
    with open(path, "wb", buffering=0) as file:
        for _ in range(count):
            start = time.perf_counter()
            file.write(bytes(1024))
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - start) * 1e3)
    path.unlink()
    times.sort()
    return {"p50": times[count // 2], "p99": times[count * 99 // 100]}


def describe(root, directory):
    """Machine, date and commit of a result."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "commit": _commit(root),
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(_field("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20), 1),
        "kernel": platform.release(),
        "flush_ms": probe_flush_ms(directory),
    }


def _field(path, name):
    """The first value after `name` in a file of fields and values."""
    with open(path) as file:
        return next((line.partition(":")[2].strip() for line in file if line.startswith(name)), None)


def _commit(root):
    """With a plus sign when files differ from it; nothing outside a repository."""
    command = ["git", "-C", root, "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=10"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or None


def settle():
    """Waits until everything that was written is on disk."""
    os.sync()
