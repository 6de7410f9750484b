# SPDX-License-Identifier: Apache-2.0
"""One test's directory, seed and processes; everything started through it ends with it."""

import ctypes
import ctypes.util
import os
import random
import shutil
import sqlite3
from pathlib import Path

from . import oracle
from .archive import BucketArchive, DirectoryArchive
from .load import Ledger, Load
from .minio import MinIO
from .proxy import Proxy
from .restoring import run_restore
from .server import Server, StatusSampler

# Filesystems that the server trusts without a word (statfs(2)): ext2-4, xfs, btrfs, tmpfs, f2fs.
_TRUSTED = {0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0xF2F52010}


class Scene:
    def __init__(self, folder, seed, shared_minio):
        self.dir = Path(folder)
        self.seed = seed
        self.random = random.Random(seed)
        self.volume = self.dir / "volume"
        self.volume.mkdir()
        self.database = self.volume / "state.db"
        self._shared_minio = shared_minio
        self._ending = []
        self._count = 0

    # ---- parts ----
    def path(self, name):
        """A new path in the test's directory: name-1, name-2 …"""
        self._count += 1
        return self.dir / f"{name}-{self._count}"

    def archive(self, kind="dir", name="archive"):
        """A new, empty archive: "dir", or "minio" (a bucket of its own in the shared MinIO)."""
        if kind == "dir":
            return DirectoryArchive(self.path(name))
        return BucketArchive(self._shared_minio())

    def minio(self):
        """A MinIO of this test alone, to be stopped and killed."""
        minio = MinIO(self.path("minio"))
        self._ending.append(minio)
        return minio.start_ready()

    def proxy(self, port):
        proxy = Proxy(port)
        self._ending.append(proxy)
        return proxy

    def server(self, archive, name=None, **settings):
        self._count += 1
        server = Server(self, archive, name=name or f"server-{self._count}", **settings)
        self._ending.append(server)
        return server

    def load(self, servers, ledger=None, **options):
        load = Load(servers, ledger or Ledger(), **options)
        self._ending.append(load)
        return load

    def sampler(self, server):
        sampler = StatusSampler(server)
        self._ending.append(sampler)
        return sampler.start()

    def rows(self, server, count, ledger=None, **options):
        """Writes at least `count` rows and returns the ledger."""
        ledger = ledger or Ledger()
        load = self.load(server, ledger, **options).start()
        load.wait_acks(count)
        load.stop()
        return ledger

    def also_end(self, thing):
        """Something with kill() or stop() to be ended with the test."""
        self._ending.append(thing)
        return thing

    # ---- the volume ----
    def wipe(self):
        """The disk died: the volume with all that is in it is gone, an empty one is there."""
        shutil.rmtree(self.volume)
        self.volume.mkdir()

    def copy_volume(self):
        """A copy of the whole volume, as an operator (or a VM's snapshot) makes one."""
        target = self.path("copy")
        shutil.copytree(self.volume, target, symlinks=True,
                        ignore=shutil.ignore_patterns("*.sock"))
        return target

    def source(self):
        """Rows of the volume's database as it lies there now; no server runs."""
        return oracle.source_rows(self.database, self.path("source"))

    def source_copy(self):
        return oracle.copy_database(self.database, self.path("source"))

    def restore(self, archive, *options, target=None, **settings):
        return run_restore(archive, target or self.database, *options, **settings)

    def restore_aside(self, archive, *options, **settings):
        """Restores into a folder of its own, which no server sees."""
        folder = self.path("restored")
        folder.mkdir()
        return run_restore(archive, folder / "state.db", *options, **settings)

    def restored_rows(self, archive, *options):
        result = self.restore_aside(archive, *options).expect(0)
        check_integrity(result.target)
        return oracle.read_rows(result.target)

    def filesystem_settings(self):
        """Where tests run on a filesystem that the server would refuse (overlay in a container)."""
        return {} if _filesystem(self.dir) in _TRUSTED else {"HARVEY_UNSAFE_FS": "1"}

    # ---- the end ----
    def end(self):
        for thing in reversed(self._ending):
            if hasattr(thing, "kill"):
                thing.kill()
            else:
                thing.stop()
            if hasattr(thing, "port") and hasattr(thing.port, "close"):
                thing.port.close()
        self._ending = []


def check_integrity(path):
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


def _filesystem(path):
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    buffer = ctypes.create_string_buffer(512)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        return 0
    return int.from_bytes(buffer.raw[:8], "little") & 0xFFFFFFFF
