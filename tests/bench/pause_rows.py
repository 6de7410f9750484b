# SPDX-License-Identifier: Apache-2.0
"""How long the writer stands still: a batch that is ready waits for SQLite's write lock while the leader
holds it (FREEZE, the opening of a snapshot). From /status, which counts every batch."""

from load_rows import Steady, half_rate
from measure import median
from table import Row

_SNAPSHOT_INTERVAL_S = 2  # so that one falls into the load
_LOADS_MAX = 10  # until snapshot, checkpoint and freeze have all been


def _at(snapshot):
    return snapshot["wal_no"], snapshot["frame_no"]


def _one(session, rate):
    """The counters after half load in which a snapshot was made and the WAL begun anew."""
    with session.server("dir", SNAPSHOT_INTERVAL_S=_SNAPSHOT_INTERVAL_S) as server:
        before = status = server.status()
        for _ in range(_LOADS_MAX):
            Steady(server, rate, 2 * session.seconds)
            status = server.status()
            counters = {name: value if name.endswith("_us") else value - before["counters"][name]
                        for name, value in status["counters"].items()}
            if counters["checkpoints"] and counters["wal_resets"] and \
                    _at(status["snapshot"]) > _at(before["snapshot"]):
                return counters
    raise RuntimeError(f"no snapshot, checkpoint or freeze under load: {status}")


def pause_rows(session):
    rate = half_rate(session)
    seen, strangers = [], []
    for _ in range(session.repetitions):
        counters, cores = session.undisturbed(lambda: _one(session, rate))
        seen.append(counters)
        strangers.append(cores)
    note = f"{rate} rows/s, {median([one['batches'] for one in seen]):.0f} batches, " \
           f"{median([one['checkpoints'] for one in seen]):.0f} checkpoints, " \
           f"{median([one['wal_resets'] for one in seen]):.0f} freezes"
    for share, name in (("p99.9", "writer_pause_p999_us"), ("max", "writer_pause_max_us")):
        session.table.add(Row(
            f"writer pause, half load with snapshots and checkpoints: {share}",
            [one[name] / 1000 for one in seen], 30, unit="ms", strangers=strangers,
            note=note if share == "p99.9" else "", details={"counters": seen}))
    session.table.add(Row("  the write lock's longest hold by a freeze",
                          [one["freeze_max_us"] / 1000 for one in seen], unit="ms",
                          strangers=strangers))
