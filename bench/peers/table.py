"""What the runs say: medians, and how nistru compares with the best peer, as data and as Markdown."""

from dataclasses import dataclass
from statistics import median

NISTRU = "nistru"


@dataclass(frozen=True)
class Row:
    """A quantity of a workload. `path` leads to it in a run's result."""

    title: str
    work: str
    path: tuple
    more_is_better: bool = False
    # What nistru is to reach and aims at, as a multiple of the best peer's.
    bar: float | None = None
    aim: float | None = None
    # The most that it may be, whatever the peers are.
    limit: float | None = None
    digits: int = 1
    # Told, but no contest: what is better depends.
    compared: bool = True

    def passes(self, value, best):
        """Whether nistru's value is good enough; `None` where nothing is asked for."""
        verdicts = []
        if self.limit is not None:
            verdicts.append(value <= self.limit)
        if self.bar is not None and best:
            verdicts.append(value >= self.bar * best if self.more_is_better else value <= self.bar * best)
        return all(verdicts) if verdicts else None

    def target(self):
        sign = "≥" if self.more_is_better else "≤"
        parts = []
        if self.bar is not None:
            parts.append(f"{sign} {self.bar:g} ×" + (f", aim {self.aim:g} ×" if self.aim else ""))
        if self.limit is not None:
            parts.append(f"≤ {self.limit:g}")
        return "; ".join(parts)


def _events(title, work, bar, aim):
    return Row(title, work, ("events_per_s",), more_is_better=True, bar=bar, aim=aim, digits=0)


ROWS = [
    _events("W1a single events, 16 producers, events/s", "w1a", 1.5, 2),
    _events("W1b single events, 64 producers, events/s", "w1b", 1.5, 2),
    _events("W2 batches of 100, 4 producers, events/s", "w2", 1.1, 1.5),
    _events("W3a 2 producers and 2 consumers, consumed events/s", "w3a", 1.2, 1.6),
    Row("W3b at 10,000 events/s, end to end p50, ms", "w3b", ("consumed", "p50_ms"), bar=0.5, digits=2),
    Row("W3b at 10,000 events/s, end to end p99, ms", "w3b", ("consumed", "p99_ms"), bar=0.5, digits=2),
    Row("W3b, of 10,000 events/s consumed", "w3b", ("events_per_s",), digits=0, compared=False),
    Row("W4 memory idle, MiB", "w2", ("idle_mib",), limit=40, digits=0),
    Row("W4 memory under W2, MiB", "w2", ("loaded_mib",), digits=0),
    Row("W4 memory under W3a, MiB", "w3a", ("loaded_mib",), limit=150, digits=0),
    Row("W5 server CPU per event, W1b, µs", "w1b", ("server_us_per_event",), bar=1),
    Row("W5 server CPU per event, W2, µs", "w2", ("server_us_per_event",), bar=1),
    Row("W6 disk bytes per event byte, W1b", "w1b", ("disk_bytes_per_byte",), digits=2),
    Row("W6 disk bytes per event byte, W2", "w2", ("disk_bytes_per_byte",), limit=2.3, digits=2),
    Row("acknowledged after, W1a p50, ms", "w1a", ("acknowledged", "p50_ms"), digits=2),
    Row("acknowledged after, W1a p99, ms", "w1a", ("acknowledged", "p99_ms"), digits=2),
    Row("flushes/s, W1a", "w1a", ("flushes_per_s",), digits=0, compared=False),
    Row("flushes/s, W1b", "w1b", ("flushes_per_s",), digits=0, compared=False),
    Row("flushes/s, W2", "w2", ("flushes_per_s",), digits=0, compared=False),
    Row("flushes/s, W3a", "w3a", ("flushes_per_s",), digits=0, compared=False),
]


def compare(runs):
    """Rows with medians over the runs. A run is `{"broker", "work", "result"}`."""
    return [row for row in (_compare(row, runs) for row in ROWS) if row["values"]]


def _compare(row, runs):
    samples = {}
    for run in runs:
        if run["work"] == row.work:
            samples.setdefault(run["broker"], []).append(_at(run["result"], row.path))
    values = {broker: median(found) for broker, found in samples.items()}
    peers = {broker: value for broker, value in values.items() if broker != NISTRU}
    best = None
    if peers and row.compared:
        best = (max if row.more_is_better else min)(peers, key=peers.get)
    nistru = values.get(NISTRU)
    known = best is not None and nistru is not None and peers[best] != 0
    return {
        "title": row.title,
        "values": values,
        "spread": {broker: [min(found), max(found)] for broker, found in samples.items()},
        "best_peer": best,
        "ratio": nistru / peers[best] if known else None,
        "target": row.target(),
        "passed": None if nistru is None else row.passes(nistru, peers.get(best)),
        "digits": row.digits,
    }


def _at(result, path):
    for name in path:
        result = result[name]
    return result


def markdown(report):
    """The report as a page."""
    machine, flush = report["machine"], report["machine"]["flush_ms"]
    brokers = report["brokers"]
    lines = [
        f"{machine['date']}, commit {machine['commit']}, {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}; a lone writer's flush takes {flush['p50']:.2f} ms "
        f"(p99 {flush['p99']:.2f} ms). Medians of {report['runs_each']} runs of {report['seconds']:g} s; differences "
        "under 20 % are noise. Bold is the best peer.",
        "",
        _line(["", *brokers, "nistru to the best peer", "to be reached", ""]),
        _line(["---"] + ["--:"] * (len(brokers) + 1) + ["---", "---"]),
    ]
    lines += [_line(_cells(row, brokers)) for row in report["rows"]]
    noisy = [run for run in report["runs"] if run["result"]["other_cores"] > report["noise_cores"]]
    if noisy:
        lines += ["", f"{len(noisy)} of {len(report['runs'])} runs were disturbed: others used more than "
                  f"{report['noise_cores']:g} cores."]  # fmt: skip
    for failure in report["failures"]:
        lines += ["", f"Failed: {failure.splitlines()[0]}"]
    lines += ["", "Least and most:", "", _line(["", *brokers]), _line(["---"] + ["--:"] * len(brokers))]
    lines += [_line([row["title"], *(_spread(row, broker) for broker in brokers)]) for row in report["rows"]]
    return "\n".join(lines) + "\n"


def _cells(row, brokers):
    best = row["best_peer"]
    values = [_number(row["values"].get(broker), row["digits"], strong=broker == best) for broker in brokers]
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} ×"
    verdict = {True: "reached", False: "**missed**", None: ""}[row["passed"]]
    return [row["title"], *values, ratio, row["target"], verdict]


def _number(value, digits, strong=False):
    if value is None:
        return ""
    text = f"{value:,.{digits}f}"
    return f"**{text}**" if strong else text


def _spread(row, broker):
    ends = row["spread"].get(broker)
    return "–".join(_number(end, row["digits"]) for end in ends) if ends else ""


def _line(cells):
    return "| " + " | ".join(cells) + " |"
