# SPDX-License-Identifier: Apache-2.0
"""The comparison, kept simple: what a restore gave must be a prefix of the commit order, and hold
every row that a status had promised.

Commit order is id order: the app never deletes, and SQLite gives the next id inside the
transaction, so ids run 1..n without a hole.
"""

import hashlib
import shutil
import sqlite3
from collections import namedtuple
from pathlib import Path

Verdict = namedtuple("Verdict", "rows restored acknowledged promised lost")


def read_rows(path, table="test"):
    """[(id, value)] of a database file that nobody has open and that has no -wal beside it. Opened
    as immutable: nothing is created beside it, nothing changes."""
    for suffix in ("-wal", "-journal"):
        assert not Path(f"{path}{suffix}").exists(), f"{path}{suffix} lies beside it"
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    try:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?",
                                  (table,)).fetchone():
            return []
        return connection.execute(f"SELECT id, value FROM {table} ORDER BY id").fetchall()
    finally:
        connection.close()


def copy_database(database, folder):
    """Database and -wal (not -shm) as they lie there, e.g. after a kill -9, into a new folder,
    with the -wal folded in: the state that a next start of SQLite would see."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    copy = folder / Path(database).name
    if not Path(database).exists():
        return None
    shutil.copyfile(database, copy)
    if Path(f"{database}-wal").exists():
        shutil.copyfile(f"{database}-wal", f"{copy}-wal")
    connection = sqlite3.connect(copy)
    try:
        told = connection.execute("PRAGMA integrity_check").fetchone()[0]
        assert told == "ok", f"{database}: integrity_check says {told}"
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    return copy


def source_rows(database, folder):
    copy = copy_database(database, folder)
    return read_rows(copy) if copy else []


def compare(restored, source, ledger, promised_before, what=""):
    """restored, source: rows; source is the whole commit order (None: not known). Raises, or gives
    the numbers."""
    ids = [row[0] for row in restored]
    assert ids == list(range(1, len(ids) + 1)), f"{what}: ids are not 1..n: {_first_break(ids)}"
    count = len(restored)
    if source is not None:
        assert restored == source[:count], (
            f"{what}: restored rows are no prefix of the source's: "
            f"{_first_difference(restored, source)}")
        by_id = dict(source)
        for ack in ledger.acks:
            assert by_id.get(ack.row) == ack.payload, (
                f"{what}: the source itself lacks an acknowledged row: {ack}, "
                f"has {by_id.get(ack.row)!r}")
    by_id = dict(restored)
    for ack in ledger.acks:
        if ack.row <= count:
            assert by_id[ack.row] == ack.payload, (
                f"{what}: row {ack.row} is {by_id[ack.row]!r}, acknowledged was {ack}")
    promised = ledger.acked_before(promised_before)
    missing = [ack for ack in promised if ack.row > count]
    assert not missing, (
        f"{what}: {len(missing)} of {len(promised)} promised rows are missing, first {missing[0]}, "
        f"{promised_before - missing[0].acknowledged:.3f} s before the promise's moment; "
        f"restored {count} rows")
    lost = sum(1 for ack in ledger.acks if ack.row > count)
    return Verdict(count, count, len(ledger.acks), len(promised), lost)


def check_values(rows, ledgers, base=()):
    """Every row is one that somebody sent, or was there before."""
    known = set(base)
    for ledger in ledgers:
        known |= ledger.sent
    for row in rows:
        assert row[1] in known, f"row {row} was sent by nobody"


def _first_break(ids):
    for index, number in enumerate(ids, 1):
        if number != index:
            return f"at place {index} stands id {number}; {len(ids)} rows, last {ids[-1]}"
    return "?"


def _first_difference(restored, source):
    for index, row in enumerate(restored):
        if index >= len(source):
            return f"{len(restored)} rows restored, {len(source)} in the source"
        if row != source[index]:
            return f"restored {row}, source {source[index]}"
    return "?"


def dump_hash(path):
    """Schema and every row of every table, as one hash; the file has no -wal beside it."""
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    connection.text_factory = bytes
    digest = hashlib.sha256()
    try:
        names = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master "
                                   "ORDER BY type, name").fetchall()
        digest.update(repr(names).encode())
        for kind, name, _, sql in names:
            if kind == b"table" and sql:
                quoted = name.decode().replace('"', '""')
                for row in connection.execute(f'SELECT * FROM "{quoted}"'):
                    digest.update(repr(row).encode())
    finally:
        connection.close()
    return digest.hexdigest()


_UNSTABLE = ((24, 28), (40, 44), (92, 96))  # of page 1: change counters and the library's version


def compare_pages(restored, source):
    """Page for page, but for what the backup API itself changes in page 1. Both without a -wal."""
    a, b = bytearray(Path(restored).read_bytes()), bytearray(Path(source).read_bytes())
    for first, end in _UNSTABLE:
        a[first:end] = b[first:end] = bytes(end - first)
    if a == b:
        return
    page = int.from_bytes(b[16:18], "big")
    page = 65536 if page == 1 else page
    assert len(a) == len(b), f"restored {len(a) // page} pages, source {len(b) // page}"
    different = [number + 1 for number in range(len(b) // page)
                 if a[number * page:(number + 1) * page] != b[number * page:(number + 1) * page]]
    raise AssertionError(f"{len(different)} pages differ, first: {different[:10]}")


def compare_databases(restored, source):
    """Whole databases, e.g. after a clean stop: content, then pages."""
    assert dump_hash(restored) == dump_hash(source), f"{restored} and {source} hold other content"
    compare_pages(restored, source)
