# SPDX-License-Identifier: Apache-2.0
"""A host that misbehaves, as tests/integration/host_faults.c plays it to one program: calls that fail,
and a clock that is stepped. See there; this side gives the orders.

  faults = Faults(scene, scene.volume, archive.path)
  server = faults.on(scene.server(archive))
  faults.order(("write", "sync"), "EIO", first=7)      # the 7th arrival from now on, once
  faults.order("open", "EMFILE", for_good=True)        # each one until faults.clear()
"""

import errno
import mmap
import struct
import subprocess
import time

from . import env

KINDS = ("open", "mkdir", "list", "read", "write", "sync", "rename", "unlink", "grow", "stat", "map",
         "lock", "memory", "thread", "descriptor", "unlock")
_STEPS_MAX = 16
_TEXT = 256
_NUMBERS = 7 + 2 * _STEPS_MAX
_SIZE = 8 * _NUMBERS + 2 * _TEXT
_KINDS, _FIRST, _LAST, _ERROR, _ARRIVED, _FAILED, _STEP_COUNT, _STEPS = range(8)
NS_PER_S = 10**9
_EVER = 2**64 - 1
_COARSE = 5  # CLOCK_REALTIME_COARSE: what the kernel stamps files with, at the earliest


def library(scene):
    """The library, made once a run of the tests."""
    made = scene.dir.parent / "host_faults.so"
    if not made.exists():
        subprocess.run([env.tool("gcc"), "-std=gnu17", "-D_GNU_SOURCE", "-O2", "-shared", "-fPIC", "-o",
                        f"{made}.new", env.ROOT / "tests/integration/host_faults.c"], check=True)
        (made.parent / f"{made.name}.new").rename(made)
    return made


class Faults:
    """The orders to every program that runs with variables(); files below `folders` count."""

    def __init__(self, scene, *folders):
        self.folders = folders
        self.file = scene.path("host-faults")
        self.file.write_bytes(bytes(_SIZE))
        self.library = library(scene)
        with open(self.file, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)

    def variables(self):
        return {"LD_PRELOAD": str(self.library), "HOST_FAULTS_FILE": str(self.file),
                "HOST_FAULTS_UNDER": ":".join(str(folder) for folder in self.folders)}

    def on(self, server):
        """The server will run on this host."""
        plain = server.environment
        server.environment = lambda: {**plain(), **self.variables()}
        return server

    def _get(self, index):
        return struct.unpack_from("Q", self._map, 8 * index)[0]

    def _set(self, index, value):
        struct.pack_into("Q", self._map, 8 * index, value)

    # ---- calls that fail ----
    def order(self, kinds, error="EIO", first=1, for_good=False, only=""):
        """The first-th arrival of these kinds fails, or all from it on; first=0 only counts. `only`:
        those on paths that hold this text."""
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        self.clear()
        self._map[8 * _NUMBERS:8 * _NUMBERS + 2 * _TEXT] = (only.encode().ljust(_TEXT, b"\0")
                                                            + bytes(_TEXT))
        for index in (_ARRIVED, _FAILED):
            self._set(index, 0)
        self._set(_ERROR, getattr(errno, error))
        self._set(_LAST, _EVER if for_good else first)
        self._set(_FIRST, first)
        self._set(_KINDS, sum(1 << KINDS.index(kind) for kind in kinds))

    def clear(self):
        """Nothing fails any more; the counts stay to be read."""
        self._set(_FIRST, 0)
        self._set(_KINDS, 0)

    def arrived(self):
        return self._get(_ARRIVED)

    def failed(self):
        return self._get(_FAILED)

    def where(self):
        """The call that failed last, with its path."""
        text = self._map[8 * _NUMBERS + _TEXT:8 * _NUMBERS + 2 * _TEXT]
        return text.split(b"\0")[0].decode("utf-8", "replace")

    # ---- the clock ----
    def step_clock(self, seconds, running=()):
        """The wall clock of the programs jumps by so much. `running`: they stand still meanwhile, so
        that what a file was stamped with lies clearly before or after it."""
        count = self._get(_STEP_COUNT)
        assert count < _STEPS_MAX
        for process in running:
            process.freeze()
        _next_tick()
        at = time.clock_gettime_ns(time.CLOCK_REALTIME)
        before = self.clock_shift_s() * NS_PER_S
        struct.pack_into("qq", self._map, 8 * (_STEPS + 2 * count), at,
                         int(before + seconds * NS_PER_S))
        self._set(_STEP_COUNT, count + 1)
        _next_tick()
        for process in running:
            process.thaw()

    def clock_shift_s(self):
        count = self._get(_STEP_COUNT)
        if count == 0:
            return 0
        return struct.unpack_from("q", self._map, 8 * (_STEPS + 2 * (count - 1) + 1))[0] / NS_PER_S

    def now_unix_s(self):
        """What the programs' clock shows."""
        return time.time() + self.clock_shift_s()


def _next_tick():
    """Until the clock that stamps files has moved on."""
    before = time.clock_gettime_ns(_COARSE)
    while time.clock_gettime_ns(_COARSE) <= before:
        time.sleep(0.001)
