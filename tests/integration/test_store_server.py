# SPDX-License-Identifier: Apache-2.0
"""Goal: whatever a store does to a server or a restore, no row is lost, the status does not say
"archived" of what is not, and all goes on by itself when the store is well again.

Method: the real programs on a scripted store. One server lives through every fault of a running store
under load; starts meet wrong listings; a restore meets each fault once, on each kind of object. The
same faults at the calls alone: test_store_faults.py.
"""

import re
import time

import pytest

from harness import oracle
from harness.archive import BIRTH, CLAIM, COMPLETE, SEGMENT
from harness.foreign import sqlite3
from harness.load import Ledger
from harness.restoring import run_restore
from harness.scripted import ScriptedArchive, faults
from harness.wait import until

ALWAYS = 10**9
PART = r"/snapshots/.*/part-"
WELCOME = b"<html><body>Welcome to our network. Please log in.</body></html>"


@pytest.fixture
def store(scene):
    archive = scene.also_end(ScriptedArchive())
    return archive


def put(fault):
    return lambda s3: s3.on("PUT", fault, times=ALWAYS)


def every_kind(fault):
    def play(s3):
        for kind in ("PUT", "GET", "HEAD", "LIST", "DELETE", "BUCKET"):
            s3.on(kind, fault, times=ALWAYS)
    return play


def skewed():
    return faults.status(403, "RequestTimeTooSkewed", "too large",
                         headers={"Date": "Tue, 24 Nov 2020 18:00:00 GMT"})


# name: (how it begins, a word that the status must say; None = it goes on and nothing is to be seen)
RUNNING = {
    "refused": (lambda s3: s3.refuse(), "connect"),
    "reset after the body": (put(faults.reset()), "put"),
    "reset before the body": (put(faults.reset(after_body=False)), "put"),
    "closed without an answer": (put(faults.close()), "put"),
    "an answer cut short": (put(faults.short_answer()), "put"),
    "500 without a body": (put(faults.status(500)), "500"),
    "503 SlowDownWrite": (put(faults.status(503, "SlowDownWrite", "reduce your rate")), "slowdown"),
    "429": (put(faults.status(429)), "429"),
    "504 with HTML": (put(faults.status(504, body=b"<html>Gateway</html>")), "504"),
    "200 with a foreign page": (put(faults.status(200, body=WELCOME)), "does not hold it"),
    "everything 500": (every_kind(faults.status(500)), "500"),
    "everything 404": (every_kind(faults.status(404, body=b"404 page not found")), "404"),
    "a foreign 412": (put(faults.status(412, "PreconditionFailed", "no")), "taken"),
    "the clocks apart": (every_kind(skewed()), "clocks"),
    "credentials expired": (every_kind(faults.status(403, "ExpiredToken", "expired")), "expired"),
    "access denied": (put(faults.status(403, "AccessDenied", "no")), "permissions"),
    "the quota": (put(faults.status(507, "XMinioStorageFull", "full")), "full"),
    "a redirect": (put(faults.status(307, headers={"Location": "http://127.0.0.1:9/x"})),
                   "redirect"),
    "a wrong ETag": (put(faults.etag('"d41d8cd98f00b204e9800998ecf8427e"')), None),
    "no ETag": (put(faults.etag(None)), None),
    "lost replies": (put(faults.lost_reply()), None),
    "slow": (every_kind(faults.late(0.2)), None),
    "lower-case headers": (every_kind(faults.lower_case()), None),
}


def test_store_server__lives_through_all(scene, store):
    server = scene.server(store).start_ready()
    generation = server.wait_snapshot()["generation"]
    ledger = Ledger()
    load = scene.load(server, ledger, clients=2, pause_s=0.02).start()
    for name, (begin, word) in RUNNING.items():
        load.wait_acks(5)
        struck = store.s3.played()
        begin(store.s3)
        try:
            if word is not None:
                server.wait_status(
                    lambda s, w=word: s["store"]["state"] != "ok" and
                    w in s["store"]["error"].lower(), f"{name} to show")
            else:
                until(lambda n=struck: store.s3.played() >= n + 5, f"{name} to be met")
            load.wait_acks(5)  # the writers do not mind
        finally:
            store.s3.heal()
            if name == "refused":
                store.s3.answer()
        server.wait_status(lambda s: s["store"]["state"] == "ok", f"the end of: {name}")
    load.stop()
    server.wait_archived()
    assert server.status()["generation"] == generation
    server.stop_clean()
    rows = oracle.read_rows(scene.source_copy())
    assert len(rows) >= len(ledger.acks)
    assert scene.restored_rows(store) == rows
    assert store.generation_ids() == [generation] and len(store.generations()) == 1


def test_store_server__the_bucket_is_deleted_and_comes_back(scene, store):
    """It may be made anew, but not by us while we may not; with its objects back all goes on."""
    server = scene.server(store).start_ready()
    server.wait_snapshot()
    scene.rows(server, 20)
    server.wait_archived()
    objects = store.s3.objects.pop("bucket")
    store.s3.on("BUCKET", faults.status(403, "AccessDenied", "not you"), times=ALWAYS)
    scene.rows(server, 10)
    server.wait_status(lambda s: s["store"]["state"] == "down", "the loss to show")
    store.s3.heal()
    store.s3.objects["bucket"] = objects
    server.wait_archived()
    rows = server.status()["rows"]
    assert len(store.generation_ids()) == 1
    server.stop_clean()
    assert len(scene.restored_rows(store)) == rows


def test_store_server__the_bucket_is_deleted_for_good(scene, store):
    """The server makes it anew, sees that what was archived is gone, and begins a new generation."""
    server = scene.server(store).start_ready()
    first = server.wait_snapshot()["generation"]
    scene.rows(server, 20)
    server.wait_archived()
    store.s3.objects.pop("bucket")
    scene.rows(server, 10)
    server.wait_status(lambda s: s["generation"] not in (None, first) and s.get("snapshot"),
                       "a new generation")
    server.wait_archived()
    rows = server.status()["rows"]
    server.stop_clean()
    assert len(scene.restored_rows(store)) == rows


def test_store_server__a_store_that_stops_answering_is_no_damage(scene, store):
    """restore --list gets the births, and then nothing: an error to be tried again, not DAMAGED."""
    server = scene.server(store).start_ready()
    server.wait_snapshot()
    server.wait_archived()
    server.stop_clean()
    store.s3.on("GET", faults.status(503, "SlowDown", "busy"), times=ALWAYS, key=r"complete\.json$")
    for form in ((), ("--json",)):
        result = scene.restore(store, "--list", *form).expect(6)
        assert "complete.json" in result.stderr + result.stdout, result
        assert "DAMAGED" not in result.stdout, result
    assert store.s3.played() >= 2


@pytest.mark.parametrize("honours", [True, False], ids=["conditional", "ignored If-None-Match"])
def test_store_server__a_listing_that_shows_nothing(scene, store, honours):
    """A stale listing at a first start on an empty volume: the archive looks empty and is not. The new
    server finds out by its first object; nothing of the old history is touched."""
    store.s3.honours_if_none_match = honours
    server = scene.server(store).start_ready()
    server.wait_snapshot()
    scene.rows(server, 20)
    server.wait_archived()
    server.stop_clean()
    rows = scene.restored_rows(store)
    before = store.list()
    scene.wipe()
    store.s3.list_cut_keys = set(store.objects)
    server = scene.server(store).start()
    until(lambda: "another server" in server.log() or "not ours" in server.log() or
          not server.is_alive(), "the conflict to be seen")
    now = store.list()
    assert {key: now.get(key) for key in before} == before
    server.kill()
    store.s3.list_cut_keys = set()
    assert scene.restored_rows(store) == rows


def test_store_server__a_stale_listing_of_what_is_ours(scene, store):
    """A look while it serves meets a listing that lacks its own birth and claim: it asks for them by name,
    and what is there is not lost."""
    server = scene.server(store, SHIP_INTERVAL_MS=0).start_ready()
    server.wait_snapshot()
    generation = server.wait_archived()["generation"]
    time.sleep(5.5)  # a look is due with the next row
    store.s3.list_cut_keys = set(store.objects)
    before = len(store.s3.requests)
    server.insert("a row")

    def asked():
        return [key for kind, key, _ in store.s3.requests[before:] if kind == "HEAD"]
    until(lambda: len(asked()) == 2, "both to be asked for")
    assert "/generations/" in asked()[0] and "/leads/" in asked()[1]
    server.insert("and on")
    status = server.wait_archived()
    assert status["generation"] == generation and status["counters"]["generations_begun"] == 1
    server.stop_clean()
    store.s3.list_cut_keys = set()
    assert len(scene.restored_rows(store)) == 2
    assert len(store.generations()) == 1


STARTS = {
    "cut": faults.cut(150), "cut with its length": faults.cut(150, length="own"),
    "cut in a chunk": faults.cut(150, chunked=True), "empty": faults.status(200, body=b""),
    "a foreign page": faults.status(200, body=WELCOME), "500": faults.status(500),
    "a foreign 404": faults.status(404, body=b"404 page not found"),
    "denied": faults.status(403, "AccessDenied", "no"),
}


def test_store_server__starts_that_meet_wrong_listings(scene, store):
    """None is taken for an archive: with its own database the server goes on when listings are right
    again, in its generation; with none it begins nothing (refused is not empty)."""
    server = scene.server(store).start_ready()
    generation = server.wait_snapshot()["generation"]
    store.s3.on("BUCKET", faults.status(403, "AccessDenied", "not you"), times=ALWAYS)
    for name, fault in STARTS.items():
        server.insert(name)
        server.kill()
        struck = store.s3.played()
        store.s3.on("LIST", fault, times=ALWAYS)
        server.start()
        until(lambda n=struck: store.s3.played() > n, f"{name} to be met")
        if name == "denied":  # told at once, where it can still be told to a person
            assert server.wait() == 6, server.log()[-2000:]
            store.s3.heal()
            server.start()
        else:
            server.wait_ready()
            server.insert("meanwhile")
            store.s3.heal()
        server.wait_archived()
        assert server.status()["generation"] == generation, name
    rows = server.status()["rows"]
    server.stop_clean()
    assert len(scene.restored_rows(store)) == rows
    before = store.list()
    scene.wipe()
    for name, fault in STARTS.items():
        struck = store.s3.played()
        store.s3.on("LIST", fault, times=ALWAYS)
        server = scene.server(store).start()
        until(lambda n=struck: store.s3.played() > n, f"{name} to be met")
        if name == "denied":
            assert server.wait() == 6, server.log()[-2000:]
        else:
            server.wait_not_ready()
        server.kill()
        assert not scene.database.exists() or scene.database.stat().st_size == 0, name
        assert store.list() == before, name
        store.s3.heal()


# ---- a restore ----

ONCE = {
    "500": faults.status(500), "503": faults.status(503, "SlowDownRead", "later"),
    "reset": faults.reset(), "closed": faults.close(), "cut": faults.cut(60),
    "cut with its length": faults.cut(60, length="own"),
    "cut in a chunk": faults.cut(60, chunked=True),
    "a foreign page": faults.status(200, body=WELCOME),
    "empty": faults.status(200, body=b""),
    "slow": faults.late(0.1), "in chunks": faults.chunked(), "lower case": faults.lower_case(),
}


@pytest.mark.parametrize("names", [
    pytest.param(("cut with its length", "a foreign page"), id="two"),
    pytest.param(tuple(ONCE), id="all", marks=pytest.mark.slow)])
def test_store_server__a_restore_meets_each_fault_once(scene, store, names):
    """On each kind of object and listing: it asks again and gives all rows. One wrong answer is no
    damage."""
    server = scene.server(store, SHIP_INTERVAL_MS=0).start_ready()
    server.wait_snapshot()
    for number in range(6):
        server.insert(f"row {number}")
        server.wait_archived()
    server.stop_clean()
    keys = store.keys()
    segments = [key for key in keys if SEGMENT.match(key)]
    kinds = {"birth": next(filter(BIRTH.match, keys)), "claim": next(filter(CLAIM.match, keys)),
             "complete": next(filter(COMPLETE.match, keys)),
             "part": next(key for key in keys if "/part-" in key),
             "segment": segments[-3], "last segment": segments[-1]}
    for name in names:
        fault = ONCE[name]
        for kind, key in kinds.items():
            restore_once(scene, store, f"{name}, {kind}", lambda k=key, f=fault: store.s3.on(
                "GET", f, key=k))
        for folder in ("^demo/$", "/$", "generations/", "/wal/", "/snapshots/", "/leads/"):
            restore_once(scene, store, f"{name}, listing of {folder}",
                         lambda k=folder, f=fault: store.s3.on("LIST", f, key=k))


def test_store_server__sizes_that_a_listing_makes_up(scene, store):
    """They serve to plan with, and nothing hangs on them: a restore gives all rows or says what is
    wrong; it does not die of a number."""
    server = scene.server(store, SHIP_INTERVAL_MS=0).start_ready()
    server.wait_snapshot()
    for number in range(4):
        server.insert(f"row {number}")
        server.wait_archived()
    server.stop_clean()
    segments = {key: SEGMENT.match(key) for key in store.keys() if SEGMENT.match(key)}
    sizes = (0, 1, 2**31, 2**32, 2**63, 2**64 - 1, "-1", "1e9", "", "9" * 60, "all")
    for size in (*sizes, "wraps"):
        store.s3.list_sizes = {}
        for key, match in segments.items():
            frames = int(match["last"]) - int(match["first"]) + 1
            wraps = 2**64 - frames * (24 + 4096) - 32  # with the frames' own bytes: 0
            store.s3.list_sizes[f"demo/{key}"] = wraps if size == "wraps" else size
        result = scene.restore_aside(store)
        assert result.code in (0, 4), f"size {size}\n{result.describe()}"
        if result.code == 0:
            assert len(oracle.read_rows(result.target)) == 4
        else:
            assert not result.left_behind()
        scene.restore_aside(store, "--list").expect(0)
    store.s3.list_sizes = {}
    assert len(scene.restored_rows(store)) == 4


HOSTILE = {
    "deep": b"<a>" * 20000 + b"</a>" * 20000,
    "a long name": b"<" + b"n" * 200000 + b"/>",
    "a long key": b"<Contents><Key>demo/" + b"k" * 300000 + b"</Key><Size>1</Size></Contents>",
    "many prefixes": b"<CommonPrefixes><Prefix>demo/x</Prefix></CommonPrefixes>" * 5000,
    "a long prefix": b"<CommonPrefixes><Prefix>" + b"p" * 100000 + b"</Prefix></CommonPrefixes>",
    "long fields": b"<Contents><Key>demo/k</Key><LastModified>" + b"9" * 5000 + b"</LastModified><ETag>"
                   + b"e" * 5000 + b"</ETag><Size>" + b"7" * 5000 + b"</Size><Owner><ID>" + b"o" * 5000
                   + b"</ID><DisplayName>" + b"d" * 5000 + b"</DisplayName></Owner></Contents>",
    "a long marker": b"<NextMarker>" + b"m" * 100000 + b"</NextMarker>",
    "nothing in it": b"",
    "no utf-8": b"<Contents><Key>demo/\xff\xfe</Key><Size>1</Size></Contents>",
    "entities": b"<Contents><Key>demo/&lol9;</Key><Size>1</Size></Contents>",
}
LAUGHS = b'<!DOCTYPE l [<!ENTITY lol "lol">' + b"".join(
    b'<!ENTITY lol%d "%s">' % (n, (b"&lol%s;" % (str(n - 1).encode() if n > 1 else b"")) * 10)
    for n in range(1, 10)) + b"]>"


def test_store_server__listings_made_to_hurt(scene, store):
    """A restore ends with a status and words, whatever XML a listing is."""
    for name, inside in HOSTILE.items():
        head = LAUGHS if name == "entities" else b""
        body = b'<?xml version="1.0"?>' + head + b"<ListBucketResult><IsTruncated>false</IsTruncated>"
        body += inside + b"</ListBucketResult>"
        store.s3.on("LIST", faults.status(200, body=body), times=ALWAYS)
        result = scene.restore_aside(store)
        store.s3.heal()
        assert result.code in (3, 4, 6), f"{name}: {result.describe()[-3000:]}"
        assert len(result.stderr.splitlines()) == 1 and len(result.stderr) < 2000, name
        assert not result.left_behind(), name


def restore_once(scene, store, what, begin):
    begin()
    result = scene.restore_aside(store)
    store.s3.heal()
    assert result.code == 0, f"{what}\n{result.describe()}"
    assert len(oracle.read_rows(result.target)) == 6, what


@pytest.mark.slow
def test_store_server__a_line_on_which_one_part_takes_minutes(scene, store):
    """The first snapshot's upload, and then its restore, take longer than a call's time-out: both go through
    at the first try."""
    sqlite3(scene.database, "PRAGMA journal_mode=WAL;", "CREATE TABLE big (value);",
            "INSERT INTO big VALUES (randomblob(2500 << 10));")
    store.s3.narrow()
    store.s3.on("PUT", faults.slow_to_read(32 << 10), times=ALWAYS, key=PART)
    store.s3.on("GET", faults.slow(32 << 10), times=ALWAYS, key=PART)
    server = scene.server(store).start_ready()
    server.insert("a row")
    server.wait_status(lambda s: s.get("snapshot"), "the snapshot", limit_s=200)
    server.wait_archived()
    server.kill()
    result = run_restore(store, scene.path("restored.db"), limit_s=200).expect(0)
    assert len(oracle.read_rows(result.target)) == 1
    asked = [kind for kind, key, _ in store.s3.requests if re.search(PART, key)]
    assert sorted(asked) == ["GET", "PUT"], asked
