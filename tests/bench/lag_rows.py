# SPDX-License-Identifier: Apache-2.0
"""What goes to a local MinIO under load. How far the archive is behind, beside what a PUT takes, with
interval 0: both from the server's /status, which keeps the last 1024 of each. What is stored and asked
for each row, at both ends of the interval."""

import threading
import time

from measure import hey, median
from session import segment_bytes
from table import Row

_SAMPLE_S = 0.02


class Timeline:
    """The lag that /status tells, again and again: [(seconds since the start, ms)]."""

    def __init__(self, server):
        self.server, self.points = server, []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        start = time.monotonic()
        while not self._stop.wait(_SAMPLE_S):
            status = self.server.try_status()
            if status:
                self.points.append((round(time.monotonic() - start, 3), status["lag"]["ms"]))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def _one(session, load):
    """A fresh server under load: (its status at the end, rows per second, the lag's timeline)."""
    with session.server("minio", SHIP_INTERVAL_MS=0) as server:
        with Timeline(server) as timeline:
            requests, seconds = load(server.url)
            status = server.status()
        return status, requests / seconds, timeline.points


def _rows(session, name, load, p50_ms, p99_ms, plot):
    over = {"p50": [], "p99": []}
    seen, strangers = [], []
    for _ in range(session.repetitions):
        (status, rate, points), cores = session.undisturbed(lambda: _one(session, load))
        strangers.append(cores)
        lag, put = status["lag"]["recent_ms"], status["store"]["put_ms"]
        for share in over:
            over[share].append(lag[share] - put[share])
        seen.append({"rate": rate, "lag_ms": lag, "put_ms": put})
        session.plots[plot] = points
    if name == "full load":
        session.plots.setdefault("rates", {})["insert, replicated to MinIO"] = \
            max(one["rate"] for one in seen)
    for share, bound in (("p50", p50_ms), ("p99", p99_ms)):
        lag = median([one["lag_ms"][share] for one in seen])
        put = median([one["put_ms"][share] for one in seen])
        session.table.add(Row(
            f"lag beyond a PUT, {name}: {share}", over[share], bound, unit="ms",
            strangers=strangers, details={"seen": seen},
            note=f"lag {lag:.0f} ms, PUT {put:.1f} ms, {median([one['rate'] for one in seen]):.0f}"
                 " rows/s"))


def lag_rows(session):
    seconds = 2 * session.seconds
    _rows(session, "200 rows/s", lambda url: hey(url, 4, seconds, per_second=50), 3, 20,
          "lag at 200 rows/s")
    _rows(session, "full load", lambda url: hey(url, 50, seconds), 15, 60, "lag at full load")


# ---- bytes and requests for each row ----
def _shipped(session, interval_ms):
    """Of a fresh server under full load, until all is archived: (bytes stored, requests, rows)."""
    with session.server("minio", SHIP_INTERVAL_MS=interval_ms) as server:
        stored = segment_bytes(server.archive)
        asked = server.status()["counters"]["store_requests"]
        rows, _ = hey(server.url, 50, session.seconds)
        asked = server.wait_archived(120)["counters"]["store_requests"] - asked
        return segment_bytes(server.archive) - stored, asked, rows


def store_rows(session):
    for interval_ms in (1000, 0):
        seen = [session.undisturbed(lambda: _shipped(session, interval_ms))
                for _ in range(session.repetitions)]
        strangers = [cores for _, cores in seen]
        details = {"bytes_requests_rows": [one for one, _ in seen]}
        session.table.add(Row(f"bytes stored per row, full load, interval {interval_ms}",
                              [stored / rows for (stored, _, rows), _ in seen], unit="bytes",
                              strangers=strangers, details=details))
        session.table.add(Row(
            f"requests to the store per 1000 rows, full load, interval {interval_ms}",
            [1000 * asked / rows for (_, asked, rows), _ in seen], strangers=strangers))
