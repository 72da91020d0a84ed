"""Medians, the best peer, ratios and verdicts."""

import unittest

import table


def run(broker, work, events_per_s, **more):
    flow = {"events_per_s": events_per_s, "p50_ms": 1.0, "p99_ms": 2.0}
    result = {
        "events_per_s": events_per_s,
        "acknowledged": flow,
        "consumed": flow,
        "idle_mib": 10.0,
        "loaded_mib": 100.0,
        "server_us_per_event": 5.0,
        "disk_bytes_per_byte": 2.0,
        "flushes_per_s": 100.0,
        "other_cores": 0.0,
    }
    return {"broker": broker, "work": work, "result": {**result, **more}}


def row(runs, start):
    return next(row for row in table.compare(runs) if row["title"].startswith(start))


class Table(unittest.TestCase):
    def test_medians_are_compared_with_those_of_the_fastest_peer(self):
        runs = [run("nistru", "w1a", rate) for rate in (10, 290, 300)]
        runs += [run("redis", "w1a", rate) for rate in (150, 200, 9000)]
        runs += [run("nats", "w1a", rate) for rate in (100, 110, 120)]
        found = row(runs, "W1a")
        self.assertEqual(found["values"], {"nistru": 290, "redis": 200, "nats": 110})
        self.assertEqual((found["best_peer"], found["ratio"], found["passed"]), ("redis", 1.45, False))
        self.assertEqual(found["spread"]["redis"], [150, 9000])

    def test_more_than_the_bar_is_reached(self):
        self.assertTrue(row([run("nistru", "w1a", 300), run("redis", "w1a", 200)], "W1a")["passed"])

    def test_of_latencies_the_smallest_is_the_best_and_half_of_it_is_asked_for(self):
        def at(broker, p99_ms):
            return run(broker, "w3b", 10_000, consumed={"p50_ms": 1.0, "p99_ms": p99_ms})

        peers = [at("redis", 10.0), at("postgresql", 8.0)]
        reached, missed = (row([at("nistru", p99_ms), *peers], "W3b at 10,000 events/s, end to end p99") for p99_ms in (4.0, 4.4))
        self.assertEqual((reached["best_peer"], reached["ratio"], reached["passed"]), ("postgresql", 0.5, True))
        self.assertEqual((missed["best_peer"], missed["ratio"], missed["passed"]), ("postgresql", 0.55, False))

    def test_a_limit_holds_whatever_the_peers_are(self):
        for loaded_mib, passed in ((149.0, True), (151.0, False)):
            runs = [run("nistru", "w3a", 1, loaded_mib=loaded_mib), run("redis", "w3a", 1, loaded_mib=900.0)]
            self.assertIs(row(runs, "W4 memory under W3a")["passed"], passed)

    def test_flushes_are_told_and_not_judged(self):
        found = row([run("nistru", "w2", 1), run("redis", "w2", 1)], "flushes/s, W2")
        self.assertEqual((found["best_peer"], found["ratio"], found["passed"]), (None, None, None))

    def test_rows_without_runs_are_left_out_and_peers_alone_are_not_judged(self):
        rows = table.compare([run("redis", "w2", 100)])
        self.assertNotIn("W1a", " ".join(row["title"] for row in rows))
        self.assertEqual({row["passed"] for row in rows}, {None})

    def test_the_page_shows_the_best_peer_the_ratio_and_the_verdict(self):
        runs = [run("nistru", "w2", 1200), run("redis", "w2", 1000), run("nats", "w2", 900, other_cores=1.0)]
        machine = {"date": "2026-01-01", "commit": "abc", "cpu": "x", "cores": 2, "memory_gib": 4, "kernel": "6"}
        report = {
            "machine": {**machine, "flush_ms": {"p50": 0.1, "p99": 0.2}},
            "runs_each": 1,
            "seconds": 6.0,
            "noise_cores": 0.3,
            "brokers": ["nistru", "redis", "nats"],
            "rows": table.compare(runs),
            "runs": runs,
            "failures": ["w2 #1 nats: gone\nmore"],
        }
        page = table.markdown(report)
        self.assertIn("| 1,200 | **1,000** | 900 | 1.20 × | ≥ 1.1 ×, aim 1.5 × | reached |", page)
        self.assertIn("1 of 3 runs were disturbed", page)
        self.assertIn("Failed: w2 #1 nats: gone\n", page)


if __name__ == "__main__":
    unittest.main()
