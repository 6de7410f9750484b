# SPDX-License-Identifier: Apache-2.0
"""Archives made by hand, from docs/archive-format.md alone: an independent writer of the format.

  Story     a real SQLite database in WAL mode, and after every commit what it held
  Forge     the objects of an archive: births, claims, snapshots, WAL objects

So what `restore` gives is compared with what SQLite itself made of the same frames.
"""

import ctypes
import ctypes.util
import hashlib
import json
import os
import random
import shutil
import sqlite3
import struct
from pathlib import Path

BASE_UNIX_MS = 1_795_000_000_000

# ---- zstd (RFC 8878) through the C library; Debian has no module for it ----

_ZSTD = ctypes.CDLL(ctypes.util.find_library("zstd") or "libzstd.so.1")
_ZSTD.ZSTD_createCCtx.restype = ctypes.c_void_p
_ZSTD.ZSTD_compressBound.restype = ctypes.c_size_t
_ZSTD.ZSTD_compressBound.argtypes = [ctypes.c_size_t]
_ZSTD.ZSTD_compress2.restype = ctypes.c_size_t
_ZSTD.ZSTD_compress2.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t,
                                 ctypes.c_char_p, ctypes.c_size_t]
_ZSTD.ZSTD_CCtx_setParameter.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
_ZSTD.ZSTD_isError.argtypes = [ctypes.c_size_t]
_CONTEXT = _ZSTD.ZSTD_createCCtx()
_ZSTD.ZSTD_CCtx_setParameter(_CONTEXT, 100, 1)  # compression level
_ZSTD.ZSTD_CCtx_setParameter(_CONTEXT, 201, 1)  # content checksum


def zstd(data):
    out = ctypes.create_string_buffer(_ZSTD.ZSTD_compressBound(len(data)))
    size = _ZSTD.ZSTD_compress2(_CONTEXT, out, len(out), data, len(data))
    assert not _ZSTD.ZSTD_isError(size)
    return out.raw[:size]


# ---- the -wal file (SQLite's file format, section 4) ----

def wal_checksum(data, start=(0, 0), big_endian=False):
    s1, s2 = start
    words = struct.unpack(f"{'>' if big_endian else '<'}{len(data) // 4}I", data)
    for i in range(0, len(words), 2):
        s1 = (s1 + words[i] + s2) & 0xffffffff
        s2 = (s2 + words[i + 1] + s1) & 0xffffffff
    return s1, s2


class Wal:
    """The valid frames of one -wal file: header, frames, which of them commit, rolling checksums."""

    def __init__(self, data):
        self.header = data[:32]
        magic, version, self.page, _, s1, s2, c1, c2 = struct.unpack(">8I", self.header)
        assert magic & ~1 == 0x377f0682 and version == 3007000
        self.magic, self.salts = magic, (s1, s2)
        big = bool(magic & 1)
        self.sums = [wal_checksum(data[:24], big_endian=big)]  # [n]: after frame n
        assert self.sums[0] == (c1, c2)
        self.frames, self.commits = [], {}  # frame_no -> database pages
        at, size = 32, 24 + self.page
        pending = []
        while at + size <= len(data):
            frame = data[at:at + size]
            page_no, pages, f1, f2, c1, c2 = struct.unpack(">6I", frame[:24])
            total = self.sums[-1] if not pending else pending[-1][1]
            total = wal_checksum(frame[24:], wal_checksum(frame[:8], total, big), big)
            if (f1, f2) != self.salts or total != (c1, c2) or page_no == 0:
                break
            pending.append((frame, total))
            if pages:
                for one, one_sum in pending:
                    self.frames.append(one)
                    self.sums.append(one_sum)
                self.commits[len(self.frames)] = pages
                pending = []
            at += size

    def bytes(self, first, last):
        head = self.header if first == 1 else b""
        return head + b"".join(self.frames[first - 1:last])

    def with_big_endian_checksums(self):
        """The same frames as a big-endian machine would have written them."""
        header = struct.pack(">I", 0x377f0683) + self.header[4:24]
        total = wal_checksum(header, big_endian=True)
        out = [header + struct.pack(">2I", *total)]
        for frame in self.frames:
            total = wal_checksum(frame[:8], total, True)
            total = wal_checksum(frame[24:], total, True)
            out.append(frame[:16] + struct.pack(">2I", *total) + frame[24:])
        return Wal(b"".join(out))


# ---- a database's life ----

class Commit:
    """A position, what the database file held there (checkpointed by SQLite), and when."""

    def __init__(self, wal_no, frame_no, data, unix_ms):
        self.wal_no, self.frame_no, self.data, self.unix_ms = wal_no, frame_no, data, unix_ms

    @property
    def position(self):
        return self.wal_no, self.frame_no


class Story:
    """Write with run(); reset() starts the next WAL. commits[0] is the state before frame 1."""

    def __init__(self, folder, page_size=4096, auto_vacuum=0, unix_ms=BASE_UNIX_MS, base=None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True)
        self.path = self.folder / "app.db"
        if base is not None:
            self.path.write_bytes(base)
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.execute(f"PRAGMA page_size={page_size}")
        self.db.execute(f"PRAGMA auto_vacuum={auto_vacuum}")
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA wal_autocheckpoint=0")
        self.db.execute("PRAGMA cache_spill=OFF")
        self.db.execute("CREATE TABLE IF NOT EXISTS test(id INTEGER PRIMARY KEY, value)")
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.page_size = page_size
        self.unix_ms = unix_ms
        self.wal_no = 1
        self.done = {}  # wal_no -> Wal of the WALs before this one
        self.commits = [Commit(1, 0, self.path.read_bytes(), unix_ms)]

    def _wal_bytes(self):
        path = Path(f"{self.path}-wal")
        return path.read_bytes() if path.exists() else b""

    def wal(self, wal_no):
        return self.done.get(wal_no) or Wal(self._wal_bytes())

    def run(self, *statements, pass_ms=10):
        """One transaction, and a commit of the story if it wrote anything."""
        self.db.execute("BEGIN IMMEDIATE")
        for statement in statements:
            if isinstance(statement, str):
                self.db.execute(statement)
            else:
                self.db.execute(*statement)
        self.db.execute("COMMIT")
        return self._note(pass_ms)

    def vacuum(self, pass_ms=10):
        self.db.execute("VACUUM")
        return self._note(pass_ms)

    def _note(self, pass_ms):
        before = self.commits[-1]
        data = self._wal_bytes()
        if not data:
            return before
        wal = Wal(data)
        done = self.done.get(self.wal_no)
        if done is not None:  # after a reset: the next WAL begins with the first frame in it
            if wal.salts == done.salts:
                return before
            self.wal_no += 1
        frame_no = len(wal.frames)
        if before.position == (self.wal_no, frame_no):
            return before
        self.unix_ms += pass_ms
        commit = Commit(self.wal_no, frame_no, self._checkpointed(), self.unix_ms)
        self.commits.append(commit)
        return commit

    def _checkpointed(self):
        """What SQLite makes of database and -wal, on copies."""
        copy = self.folder / "copy.db"
        shutil.copyfile(self.path, copy)
        shutil.copyfile(f"{self.path}-wal", f"{copy}-wal")
        db = sqlite3.connect(copy)
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        data = copy.read_bytes()
        db.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
        return data

    def reset(self):
        """Backfills; the next commit begins a new WAL with other salts."""
        if self.wal_no in self.done or not self.commits[-1].frame_no:
            return
        self.done[self.wal_no] = Wal(self._wal_bytes())
        busy, log, done = self.db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        assert busy == 0 and log == done

    def end(self):
        """Keeps the last WAL and closes; wal() goes on working."""
        if self.wal_no not in self.done and self.commits[-1].frame_no:
            self.done[self.wal_no] = Wal(self._wal_bytes())
        self.db.close()
        return self

    def wals(self):
        return sorted(set(self.done) | {commit.wal_no for commit in self.commits[1:]})


# ---- the archive ----

CONTINUED, CONTINUES, FIRST = 1, 2, 4


def point_json(point):
    (wal_no, frame_no), (s1, s2) = point
    return {"wal_no": wal_no, "frame_no": frame_no, "checksum": f"{s1:08x}{s2:08x}"}


class Generation:
    def __init__(self, forge, number, tail, window, page_size):
        self.forge, self.number, self.window, self.page_size = forge, number, window, page_size
        self.id = f"{number:08d}-{tail:016x}"
        self.term, self.tag = 1, "11111111"
        self.segments = []  # keys in order

    def claim(self, term, tag, start=((1, 0), (0, 0)), unix_ms=BASE_UNIX_MS):
        self.term, self.tag = term, tag
        self.forge.put_json(f"{self.id}/leads/{term:010d}.json", {
            "generation": self.id, "term": term, "tag": tag, "start": point_json(start),
            "host": "forge", "boot_id": "00000000-0000-0000-0000-000000000000", "pid": 1,
            "unix_ms": unix_ms})

    def snapshot(self, data, point, unix_ms, tag="5a5a5a5a", part_bytes=1 << 24, complete=True):
        """The database file `data` at `point`. Gives the folder's key."""
        (wal_no, frame_no), _ = point
        folder = f"{self.id}/snapshots/{wal_no:010d}-{frame_no:010d}-{tag}"
        parts = []
        for number, at in enumerate(range(0, len(data), part_bytes), 1):
            piece = data[at:at + part_bytes]
            stored = zstd(piece)
            self.forge.put(f"{folder}/part-{number:010d}.db.zst", stored)
            parts.append({"content_bytes": len(piece), "object_bytes": len(stored),
                          "sha256": hashlib.sha256(stored).hexdigest()})
        if complete:
            self.forge.put_json(f"{folder}/complete.json", {
                "generation": self.id, "point": point_json(point), "tag": tag,
                "page_size": self.page_size, "pages": len(data) // self.page_size,
                "unix_ms": unix_ms, "completed_unix_ms": unix_ms, "parts": parts})
        return folder

    def segment(self, wal, wal_no, first, last, times, link, archived=None, **change):
        """Frames first..last of `wal` (a Wal). times: [(frame_no, unix_ms)]; link, archived: points
        or None. `change` overrides fields, for objects that lie. Gives the key."""
        content = change.get("content", wal.bytes(first, last))
        flags = 0
        if last not in wal.commits:
            flags |= CONTINUED
        if first > 1 and first - 1 not in wal.commits:
            flags |= CONTINUES
        if link is None:
            flags |= FIRST
        inside = [no for no in wal.commits if first <= no <= last]
        zero = ((0, 0), (0, 0))

        def pack_point(point):
            (w, f), (s1, s2) = point or zero
            return struct.pack(">4I", w, f, s1, s2)

        body = struct.pack(">8s4I", b"HarveyWS", 1, 200 + 12 * len(times),
                           change.get("flags", flags), wal.page)
        body += struct.pack(">I", self.number) + bytes.fromhex(self.id[9:])
        body += struct.pack(">I", self.term) + bytes.fromhex(self.tag)
        body += struct.pack(">5I", wal_no, first, last,
                            wal.commits[inside[-1]] if inside else 0, wal.magic)
        body += struct.pack(">2I", *change.get("salts", wal.salts))
        body += struct.pack(">2I", *change.get("before", wal.sums[first - 1]))
        body += struct.pack(">2I", *wal.sums[last])
        body += pack_point(link) + pack_point(archived)
        body += struct.pack(">Q", len(content)) + hashlib.sha256(content).digest()
        body += struct.pack(">2I", len(times), 0)
        for frame_no, unix_ms in times:
            body += struct.pack(">IQ", frame_no, unix_ms)
        body += hashlib.sha256(body).digest()
        data = struct.pack("<2I", 0x184D2A5B, len(body)) + body + zstd(content)
        key = (f"{self.id}/wal/{wal_no:010d}/{first:010d}-{last:010d}-{times[-1][1]:013d}-"
               f"{self.term:010d}-{self.tag}.wal.zst")
        self.forge.put(key, data)
        self.segments.append(key)
        return key

    def ship(self, story, cuts, archived=None, wals=None):
        """All of a story. cuts(wal_no, frame_count, commits) gives the last frames of the objects."""
        link = None
        for wal_no in wals or story.wals():
            wal = story.wal(wal_no)
            commits = [c for c in story.commits if c.wal_no == wal_no and c.frame_no]
            first = 1
            for last in cuts(wal_no, len(wal.frames), [c.frame_no for c in commits]):
                times = [(c.frame_no, c.unix_ms) for c in commits if first <= c.frame_no <= last]
                if not times or times[-1][0] != last:
                    times.append((last, next(c.unix_ms for c in commits if c.frame_no >= last)))
                self.segment(wal, wal_no, first, last, times, link, archived=archived)
                link = ((wal_no, last), wal.sums[last])
                first = last + 1
        return link


def sealed(value):
    """JSON as the archive has it, with the sum over all else."""
    plain = {key: item for key, item in value.items() if key != "sha256"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps({**plain, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()


class Forge:
    """An archive in a directory; `archive` is what the harness calls one."""

    def __init__(self, archive):
        self.archive = archive

    def put(self, key, data):
        path = self.archive.path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def put_json(self, key, value):
        self.put(key, sealed({"format": 1, **value}))

    def generation(self, number=1, tail=0x1234567890abcdef, parent=None, parent_point=None,
                   supersedes=(), cause="first_start", unix_ms=BASE_UNIX_MS, window=8,
                   page_size=4096, birth=True):
        generation = Generation(self, number, tail, window, page_size)
        if birth:
            self.put_json(f"generations/{number:08d}.json", {
                "generation": generation.id, "parent": parent,
                "parent_point": point_json(parent_point) if parent else None,
                "supersedes": list(supersedes), "cause": cause, "cause_detail": "",
                "page_size": page_size, "window": window, "host": "forge",
                "harvey_version": "0", "sqlite_version": sqlite3.sqlite_version,
                "unix_ms": unix_ms})
        return generation


def cut_at_commits(every=1):
    """Objects end on every n-th commit, and at the WAL's end."""
    def cuts(wal_no, frames, commits):
        del wal_no
        return sorted(set(commits[every - 1::every]) | {frames})
    return cuts


def cut_anywhere(seed, most=9):
    """Objects end anywhere, also inside transactions."""
    rng = random.Random(seed)

    def cuts(wal_no, frames, commits):
        del wal_no, commits
        last, ends = 0, []
        while last < frames:
            last = min(frames, last + rng.randint(1, most))
            ends.append(last)
        return ends
    return cuts


def point_of(story, commit):
    """The commit with its checksum."""
    if commit.frame_no == 0:
        return (1, 0), (0, 0)
    return commit.position, story.wal(commit.wal_no).sums[commit.frame_no]


def fill(path, size):
    with open(path, "ab") as file:
        os.ftruncate(file.fileno(), size)
