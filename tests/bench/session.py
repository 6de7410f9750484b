# SPDX-License-Identifier: Apache-2.0
"""What all rows share: how long and how often, fresh servers, pairs measured in turn."""

import contextlib
import copy
import shutil
import time

import measure
from harness import env
from harness.door import behind
from harness.server import Server
from harness.wait import until
from measure import STRANGERS_MAX, Strangers
from table import Row

_REST_S = 0.05  # that long it is watched, and uses
_REST_CORES_MAX = 0.02  # at most this
RETRIES_MAX = 6  # in a whole run, of repetitions in which others took CPU; none with --quick


class Session:
    """seconds: of one measurement under load that stands alone; round_s, rounds: of pairs. Rows go into
    `table`; `plots` is for the pictures."""

    def __init__(self, table, scene, quick):
        self.table, self.scene, self.quick = table, scene, quick
        self.repetitions = 2 if quick else 5
        self.seconds = 2 if quick else 5
        self.rounds = 2 if quick else 8
        self.many_rounds = 2 if quick else 16
        self.round_s = 1 if quick else 1.2
        self.long_round_s = 1 if quick else 2  # some ship intervals: little is left for after the load
        self.retries = 0 if quick else RETRIES_MAX
        self.plots = {}

    def undisturbed(self, function):
        """(its value, cores taken by others): called once more where others disturbed; the better
        one counts."""
        with Strangers() as others:
            value = function()
        if others.cores <= STRANGERS_MAX or self.retries == 0:
            return value, others.cores
        self.retries -= 1
        with Strangers() as again:
            second = function()
        return (second, again.cores) if again.cores < others.cores else (value, others.cores)

    @contextlib.contextmanager
    def server(self, kind=None, hooks=False, database=None, archive=None, door=None, **settings):
        """A server on a new database (or the one given), ready and with its first snapshot; killed
        and forgotten at the end. kind: None (no archive), "dir" or "minio"."""
        folder = self.scene.path("volume")
        folder.mkdir()
        if archive is None and kind:
            archive = self.scene.archive(kind)
        binary = env.hooks_program("server") if hooks else None
        server = Server(self.scene, archive, database=database or folder / "state.db",
                        name=folder.name, binary=binary,
                        **{"SYNCHRONOUS": "NORMAL", "SHIP_INTERVAL_MS": 1000,
                           "LOG_LEVEL": "warn", **settings})
        self.scene.also_end(server)
        if door:
            behind(door, server)
        try:
            server.start_ready()
            if archive is not None:
                server.wait_status(lambda s: s.get("snapshot"), "a complete snapshot", 300)
                server.wait_archived(120)
            server.url = f"http://127.0.0.1:{server.port.number}"
            yield server
        finally:
            server.kill()
            shutil.rmtree(folder, ignore_errors=True)
            if kind == "dir":
                shutil.rmtree(archive.path, ignore_errors=True)

    def in_turn(self, variants, rounds=None, repetitions=None):
        """variants: {name: function}, or a function that gives a context manager with such, entered
        anew for each repetition. A repetition calls all of them in turn, `rounds` times (the
        machine's own speed changes within seconds), the other way round every second time, and adds
        up what each gave: ({name: [sum per repetition]}, [cores taken by others])."""
        values, strangers = {}, []
        for _ in range(repetitions or self.repetitions):
            now, cores = self.undisturbed(lambda: _rounds(variants, rounds or self.rounds))
            strangers.append(cores)
            for name, value in now.items():
                values.setdefault(name, []).append(value)
        return values, strangers

    def ratio(self, name, above, below, bound=None, strangers=(), **more):
        """Adds the row of above/below, a ratio per repetition."""
        details = {"above": above, "below": below, **more.pop("details", {})}
        row = Row(name, [a / b for a, b in zip(above, below)], bound, strangers=strangers,
                  details=details, **more)
        self.table.add(row)
        return row


def _rounds(variants, rounds):
    with variants() if callable(variants) else contextlib.nullcontext(variants) as functions:
        sums = {}
        for number in range(rounds):
            for name in list(functions)[::-1 if number % 2 else 1]:
                value = functions[name]()
                sums[name] = sums[name] + value if name in sums else value
        return {name: sums[name] for name in functions}


def segment_bytes(archive):
    """What lies there of WAL; snapshots apart."""
    return sum(size for key, (size, _) in archive.list().items() if key.endswith(".wal.zst"))


def quiet(server):
    """Waits until the server has archived everything and uses next to no CPU: the next round is another's."""
    if server.archive is not None:
        server.wait_archived(120)

    def rests():
        before = measure.cpu_seconds(server.pid)
        time.sleep(_REST_S)
        return measure.cpu_seconds(server.pid) - before < _REST_S * _REST_CORES_MAX
    until(rests, "the server to rest", 60)


class Loaded:
    """What a load on a server gave, until the server was at rest again; load: () -> (requests, seconds).
    They can be added up."""

    def __init__(self, server, load):
        cpu_s = measure.stat_seconds(server.pid)
        self.requests, self.seconds = load()
        under_load_s = measure.stat_seconds(server.pid) - cpu_s
        quiet(server)
        self.cpu_s = measure.stat_seconds(server.pid) - cpu_s
        self.after_s = self.cpu_s - under_load_s  # what it did when the load was over

    def __add__(self, other):
        total = copy.copy(self)
        for name, value in vars(other).items():
            setattr(total, name, getattr(self, name) + value)
        return total

    @property
    def rate(self):
        return self.requests / self.seconds

    @property
    def cpu_us(self):
        return self.cpu_s / self.requests * 1e6
