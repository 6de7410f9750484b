# SPDX-License-Identifier: Apache-2.0
"""What all rows share: how long and how often, fresh servers, pairs measured side by side."""

import contextlib
import shutil
import time

import measure
from harness import env
from harness.door import behind
from harness.server import Server
from measure import STRANGERS_MAX, Strangers
from table import Row

RETRIES_MAX = 6  # in a whole run, of repetitions in which others took CPU; none with --quick


class Session:
    """seconds: of one measurement under load. Rows go into `table`; `plots` is for the pictures."""

    def __init__(self, table, scene, quick):
        self.table, self.scene, self.quick = table, scene, quick
        self.repetitions = 2 if quick else 5
        self.seconds = 2 if quick else 5
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
        if hooks and binary is None:
            raise RuntimeError("the flavour with test hooks is not built (make FLAVOUR=hooks build)")
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

    def side_by_side(self, variants, repetitions=None):
        """variants: {name: function}. Calls them in turn, the other way round every second time;
        ({name: [value per repetition]}, [cores taken by others])."""
        values, strangers = {name: [] for name in variants}, []
        for repetition in range(repetitions or self.repetitions):
            order = list(variants)[::-1 if repetition % 2 else 1]
            now, cores = self.undisturbed(lambda order=order: {n: variants[n]() for n in order})
            strangers.append(cores)
            for name in variants:
                values[name].append(now[name])
        return values, strangers

    def ratio(self, name, above, below, bound=None, strangers=(), **more):
        """Adds the row of above/below, a ratio per repetition."""
        details = {"above": above, "below": below, **more.pop("details", {})}
        row = Row(name, [a / b for a, b in zip(above, below)], bound, strangers=strangers,
                  details=details, **more)
        self.table.add(row)
        return row


class Loaded:
    """What a load on a server gave: requests per second, CPU seconds of the server per request."""

    def __init__(self, server, load):
        cpu_s = measure.stat_seconds(server.pid)
        begun = time.monotonic()
        self.rate, self.requests = load()
        self.cpu_s = measure.stat_seconds(server.pid) - cpu_s
        self.cores = self.cpu_s / (time.monotonic() - begun)
        self.cpu_us = self.cpu_s / self.requests * 1e6
