# SPDX-License-Identifier: Apache-2.0
"""Goal: whatever is set wrongly is said in one line that names it and its cure, with the documented
exit status, and nothing is touched.

Method: the programs run with one thing wrong at a time, to their end.
"""

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from harness import env
from harness.archive import BucketArchive
from harness.process import clean_environment
from harness.restoring import run_restore
from harness.scripted import ScriptedArchive, faults
from harness.wait import until


def s3(**other):
    """A good setting of an S3 archive, but for what is given (None: not set)."""
    return {"HARVEY_ARCHIVE": "s3://bucket/prefix", "HARVEY_S3_ENDPOINT": "http://127.0.0.1:1",
            "HARVEY_S3_ACCESS_KEY_ID": "a", "HARVEY_S3_SECRET_ACCESS_KEY": "hush-hush", **other}


BAD = {
    "unknown name": ({"HARVEY_SHIP_INTERVAL": "100"}, ["HARVEY_SHIP_INTERVAL"]),
    "ship interval not a number": ({"HARVEY_SHIP_INTERVAL_MS": "soon"},
                                   ["HARVEY_SHIP_INTERVAL_MS", "soon"]),
    "ship interval negative": ({"HARVEY_SHIP_INTERVAL_MS": "-1"},
                               ["HARVEY_SHIP_INTERVAL_MS", "-1"]),
    "ship interval with a tail": ({"HARVEY_SHIP_INTERVAL_MS": "100ms"},
                                  ["HARVEY_SHIP_INTERVAL_MS", "100ms"]),
    "ship interval huge": ({"HARVEY_SHIP_INTERVAL_MS": "99999999999999999999"},
                           ["HARVEY_SHIP_INTERVAL_MS"]),
    "snapshot interval": ({"HARVEY_SNAPSHOT_INTERVAL_S": "daily"},
                          ["HARVEY_SNAPSHOT_INTERVAL_S", "daily"]),
    "synchronous": ({"HARVEY_SYNCHRONOUS": "OFF"}, ["HARVEY_SYNCHRONOUS", "OFF", "FULL", "NORMAL"]),
    "ack": ({"HARVEY_ACK": "maybe"}, ["HARVEY_ACK", "maybe", "local"]),
    "ack not yet": ({"HARVEY_ACK": "archive"}, ["HARVEY_ACK", "archive"]),
    "on empty": ({"HARVEY_ON_EMPTY": "panic"}, ["HARVEY_ON_EMPTY", "panic", "refuse", "restore"]),
    "on empty new without a name": ({"HARVEY_ON_EMPTY": "new:"}, ["HARVEY_ON_EMPTY"]),
    "on empty new with a bad name": ({"HARVEY_ON_EMPTY": "new:7"}, ["HARVEY_ON_EMPTY", "7"]),
    "on stale": ({"HARVEY_ON_STALE": "ignore"}, ["HARVEY_ON_STALE", "ignore", "fork"]),
    "on stale fork with a bad name": ({"HARVEY_ON_STALE": "fork:latest"}, ["HARVEY_ON_STALE"]),
    "on outage": ({"HARVEY_ON_OUTAGE": "cry"}, ["HARVEY_ON_OUTAGE", "cry"]),
    "on outage not yet": ({"HARVEY_ON_OUTAGE": "slow"}, ["HARVEY_ON_OUTAGE", "slow"]),
    "spool cap": ({"HARVEY_SPOOL_MAX_BYTES": "1G?"}, ["HARVEY_SPOOL_MAX_BYTES", "1G?"]),
    "spool cap tiny": ({"HARVEY_SPOOL_MAX_BYTES": "1"}, ["HARVEY_SPOOL_MAX_BYTES"]),
    "stop timeout": ({"HARVEY_STOP_TIMEOUT_MS": "-5"}, ["HARVEY_STOP_TIMEOUT_MS"]),
    "unsafe fs": ({"HARVEY_UNSAFE_FS": "yes"}, ["HARVEY_UNSAFE_FS", "yes"]),
    "log level": ({"HARVEY_LOG_LEVEL": "loud"}, ["HARVEY_LOG_LEVEL", "loud", "debug"]),
    "listen without a port": ({"HARVEY_LISTEN": "127.0.0.1"}, ["HARVEY_LISTEN", "127.0.0.1"]),
    "listen port out of range": ({"HARVEY_LISTEN": "127.0.0.1:70000"}, ["HARVEY_LISTEN", "70000"]),
    "listen nonsense": ({"HARVEY_LISTEN": "everywhere"}, ["HARVEY_LISTEN", "everywhere"]),
    "archive scheme": ({"HARVEY_ARCHIVE": "ftp://host/dir"}, ["HARVEY_ARCHIVE", "ftp"]),
    "archive no scheme": ({"HARVEY_ARCHIVE": "/backup"}, ["HARVEY_ARCHIVE", "/backup"]),
    "archive dir empty": ({"HARVEY_ARCHIVE": "dir:"}, ["HARVEY_ARCHIVE"]),
    "s3 without an endpoint": (s3(HARVEY_S3_ENDPOINT=None), ["HARVEY_S3_ENDPOINT"]),
    "s3 without keys": (s3(HARVEY_S3_ACCESS_KEY_ID=None, HARVEY_S3_SECRET_ACCESS_KEY=None),
                        ["HARVEY_S3_ACCESS_KEY_ID"]),
    "s3 without a secret": (s3(HARVEY_S3_SECRET_ACCESS_KEY=None), ["HARVEY_S3_SECRET_ACCESS_KEY"]),
    "s3 endpoint nonsense": (s3(HARVEY_S3_ENDPOINT="minio"), ["HARVEY_S3_ENDPOINT", "minio"]),
    "s3 bucket name": (s3(HARVEY_ARCHIVE="s3://Bad_Bucket!/prefix"),
                       ["HARVEY_ARCHIVE", "Bad_Bucket!"]),
    "s3 no bucket": (s3(HARVEY_ARCHIVE="s3://"), ["HARVEY_ARCHIVE"]),
    "s3 prefix with odd letters": (s3(HARVEY_ARCHIVE="s3://bucket/a b&c"), ["HARVEY_ARCHIVE"]),
    "secret file missing": (s3(HARVEY_S3_ACCESS_KEY_ID=None, HARVEY_S3_SECRET_ACCESS_KEY=None,
                               HARVEY_S3_ACCESS_KEY_ID_FILE="/nonexistent/key",
                               HARVEY_S3_SECRET_ACCESS_KEY_FILE="/nonexistent/secret"),
                            ["/nonexistent/"]),
    "ca file missing": (s3(HARVEY_S3_ENDPOINT="https://127.0.0.1:1",
                           HARVEY_S3_CA_FILE="/nonexistent/ca.pem"), ["/nonexistent/ca.pem"]),
}


def run_server(scene, variables, *arguments, binary="server", limit_s=30):
    base = {"HARVEY_DB": scene.database, "HARVEY_LISTEN": "127.0.0.1:0",
            "HARVEY_ARCHIVE": f"dir:{scene.dir / 'archive'}", **scene.filesystem_settings()}
    base.update(variables)
    return subprocess.run([env.program(binary), *arguments], env=clean_environment(**base),
                          cwd=scene.dir, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=limit_s, check=False)


def said(done):
    return done.stdout + done.stderr


def complaint(done, words):
    """Exactly one line speaks of it, it holds all the words, and no secret."""
    lines = [line for line in said(done).splitlines()
             if all(word.lower() in line.lower() for word in words)]
    assert len(lines) == 1, f"{words} in one line, once:\n{said(done)}"
    assert "hush-hush" not in said(done), "a secret was printed"


@pytest.mark.parametrize("name", BAD)
def test_config__bad_value(scene, name):
    variables, words = BAD[name]
    done = run_server(scene, variables)
    assert done.returncode == 2, (done.returncode, said(done))
    complaint(done, words)
    assert not scene.database.exists() and not list(scene.volume.iterdir()), "nothing is touched"
    assert len(said(done).splitlines()) == 1, f"one line, not more:\n{said(done)}"


@pytest.mark.parametrize("name", [name for name in BAD if "archive" in name or "s3" in name
                                  or "file missing" in name or name == "unknown name"])
def test_config__bad_value_told_by_restore(scene, name):
    variables, words = BAD[name]
    done = run_server(scene, variables, "--to-latest", binary="restore")
    assert done.returncode == 2, (done.returncode, said(done))
    complaint(done, words)
    assert not scene.database.exists()


def test_config__archive_inside_the_database_directory(scene):
    done = run_server(scene, {"HARVEY_ARCHIVE": f"dir:{scene.volume / 'backup'}"})
    assert done.returncode == 2, said(done)
    complaint(done, ["HARVEY_ARCHIVE", str(scene.volume / "backup")])


def test_config__same_filesystem_is_noted(scene):
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    assert "filesystem" in server.log().lower(), server.log()
    assert "filesystem" in server.request("GET", "/status").body.lower()
    server.stop_clean()


def test_config__database_directory_missing(scene):
    done = run_server(scene, {"HARVEY_DB": scene.dir / "no" / "such" / "state.db"})
    assert done.returncode in (2, 7), said(done)
    complaint(done, [str(scene.dir / "no" / "such")])


def test_config__database_is_a_directory(scene):
    scene.database.mkdir()
    done = run_server(scene, {})
    assert done.returncode in (2, 7), said(done)
    complaint(done, ["state.db"])


def test_config__database_is_no_database(scene):
    scene.database.write_bytes(b"certainly no database, but long enough to be read as one\n" * 100)
    before = scene.database.read_bytes()
    server = scene.server(scene.archive("dir")).start()

    def decided():
        reply = server.is_alive() and server.readyz()
        return not server.is_alive() or reply and reply.code == 503 and "state.db" in reply.body
    until(decided, "an end, or a reason that names the file")
    assert server.is_alive() or server.child.poll() == 7, server.log()
    assert "state.db" in server.log() and "database" in server.log()
    assert scene.database.read_bytes() == before


def unprivileged():
    """Runs as nobody where we are root: root may write everywhere."""
    if os.geteuid() == 0:
        return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return []


@pytest.mark.parametrize("which", ["database", "archive"])
def test_config__unwritable_directory(scene, which):
    if unprivileged():
        env.tool("setpriv")
    for parent in [scene.dir, *scene.dir.parents]:
        if parent.stat().st_uid == os.geteuid() and str(parent) != "/":
            parent.chmod(parent.stat().st_mode | 0o055)
    archive = scene.dir / "archive-dir"
    archive.mkdir()
    good, bad = (archive, scene.volume) if which == "database" else (scene.volume, archive)
    good.chmod(0o777)
    bad.chmod(0o555)
    binary = Path(env.program("server"))
    if not os.access(binary, os.X_OK) or unprivileged() and not readable_by_all(binary):
        env.cannot_run(f"{binary} lies where another user cannot run it")
    done = subprocess.run([*unprivileged(), str(binary)], env=clean_environment(
        HARVEY_DB=scene.database, HARVEY_LISTEN="127.0.0.1:0", HARVEY_ARCHIVE=f"dir:{archive}",
        **scene.filesystem_settings()), cwd="/", stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=30, check=False)
    bad.chmod(0o755)
    assert done.returncode == (7 if which == "database" else 6), (done.returncode, said(done))
    complaint(done, [str(bad), "ermission"])


def readable_by_all(path):
    return all(parent.stat().st_mode & 0o001 for parent in [path, *path.parents])


def test_config__port_in_use(scene):
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    done = run_server(scene, {"HARVEY_LISTEN": f"127.0.0.1:{port}"})
    assert done.returncode == 7, (done.returncode, said(done))
    complaint(done, [f"127.0.0.1:{port}", "in use"])
    taken.close()


def test_config__port_in_use_loses_nothing(scene):
    """With an archive and a database: the failed start leaves both as they were."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    scene.rows(server, 10)
    server.wait_snapshot()
    generation = server.wait_archived()["generation"]
    server.stop_clean()
    taken = socket.create_server(("127.0.0.1", 0))
    done = run_server(scene, {"HARVEY_LISTEN": f"127.0.0.1:{taken.getsockname()[1]}",
                              **archive.environment()})
    assert done.returncode == 7, said(done)
    taken.close()
    server.start_ready()
    server.wait_leader()
    assert server.wait_archived()["generation"] == generation
    server.stop_clean()


def test_config__listens_on_a_unix_socket(scene):
    path = scene.dir / "app.sock"
    server = scene.server(scene.archive("dir"), LISTEN=f"unix:{path}").start()
    def answers():
        server.check_alive()
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
            except OSError:
                return None
            client.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            data = b""
            while piece := client.recv(4096):
                data += piece
        return data if b" 200 " in data.split(b"\r\n")[0] else None
    until(answers, "an answer on the unix socket")
    server.kill()
    server.start()  # the socket file of a killed server is not in the way
    until(answers, "an answer after a kill")
    server.stop_clean()


@pytest.mark.parametrize("which", ["key", "secret"])
def test_config__wrong_credentials(scene, which):
    """Refused is not empty: exit 6, one line, no secret in it, and nothing begun."""
    archive = scene.archive("minio")
    variables = archive.environment()
    name = {"key": "HARVEY_S3_ACCESS_KEY_ID", "secret": "HARVEY_S3_SECRET_ACCESS_KEY"}[which]
    variables[name] = "wrong-one"
    done = run_server(scene, variables)
    assert done.returncode == 6, (done.returncode, said(done))
    assert any(word in said(done).lower()
               for word in ("credential", "access key", "signature", "denied"))
    assert f"127.0.0.1:{archive.endpoint_port}" in said(done) or archive.url in said(done)
    assert archive.minio.secret_key not in said(done)
    assert not scene.database.exists()
    archive.environment = lambda: variables
    result = run_restore(archive, scene.database)
    assert result.code == 6 and archive.minio.secret_key not in result.text, result.describe()


REFUSALS = {
    "400": faults.status(400, "InvalidRequest", "not like that"),
    "a bare 400": faults.status(400),
    "405": faults.status(405, "MethodNotAllowed", "not here"),
    "501": faults.status(501, "NotImplemented", "not implemented"),
    "a redirect": faults.status(301, "PermanentRedirect", "elsewhere",
                                headers={"Location": "http://127.0.0.1:9/bucket"}),
    "403": faults.status(403, "AccessDenied", "no"),
}


@pytest.mark.parametrize("name, kind", [  # at the look at the bucket, and at the probe
    (name, kind) for name in REFUSALS for kind in ("LIST", "PUT")
    if (name, kind) != ("501", "PUT")])  # which says only that it knows no conditional PUT
def test_config__a_store_that_refuses(scene, name, kind):
    """Whatever word a store refuses with, it is not the configuration's form that is wrong: exit 6, one line."""
    archive = scene.also_end(ScriptedArchive())
    archive.s3.on(kind, REFUSALS[name], times=10**9)
    done = run_server(scene, archive.environment())
    assert done.returncode == 6, (done.returncode, said(done))
    complaint(done, [archive.s3.endpoint, "redirects" if name == "a redirect" else name.split()[-1]])
    assert not scene.database.exists()
    if kind == "LIST":
        result = run_restore(archive, scene.database).expect(6)
        assert name.split()[-1] in result.text, result.describe()
        assert not scene.database.exists()


def test_config__a_ca_file_that_holds_none(scene):
    """Nobody was asked yet: that is the configuration."""
    archive = scene.also_end(ScriptedArchive())
    (scene.dir / "ca.pem").write_text("no certificate\n")
    variables = {**archive.environment(), "HARVEY_S3_CA_FILE": scene.dir / "ca.pem",
                 "HARVEY_S3_ENDPOINT": archive.s3.endpoint.replace("http:", "https:")}
    done = run_server(scene, variables)
    assert done.returncode == 2, (done.returncode, said(done))
    complaint(done, [str(scene.dir / "ca.pem")])


def test_config__credentials_from_files_and_fallbacks(scene):
    archive = scene.archive("minio")
    (scene.dir / "key").write_text(archive.minio.access_key + "\n")
    (scene.dir / "secret").write_text(archive.minio.secret_key + "\n")
    base = {"HARVEY_ARCHIVE": archive.url,
            "HARVEY_S3_ENDPOINT": f"http://127.0.0.1:{archive.endpoint_port}"}
    ways = ({"HARVEY_S3_ACCESS_KEY_ID_FILE": scene.dir / "key",
             "HARVEY_S3_SECRET_ACCESS_KEY_FILE": scene.dir / "secret"},
            {"AWS_ACCESS_KEY_ID": archive.minio.access_key,
             "AWS_SECRET_ACCESS_KEY": archive.minio.secret_key})
    for way in ways:
        archive.environment = lambda way=way: {**base, **way}
        server = scene.server(archive).start_ready()
        scene.rows(server, 3, clients=1)
        server.wait_archived()
        argv = open(f"/proc/{server.pid}/cmdline", encoding="ascii").read()
        assert archive.minio.secret_key not in argv + server.log(whole=True)
        server.stop_clean()
    scene.restore_aside(archive).expect(0)


def test_config__store_unreachable_is_waited_for(scene):
    """A closed port is no configuration error: the server waits and says which address."""
    archive = scene.archive("minio")
    closed = BucketArchive(archive.minio)
    closed.endpoint_port = 1
    server = scene.server(closed).start()
    server.wait_not_ready()
    assert re.search(r"127\.0\.0\.1(:| port )1\b", server.status()["reason"]), server.status()
    server.stop_clean()
    result = run_restore(closed, scene.database).expect(6)
    assert re.search(r"127\.0\.0\.1(:| port )1\b", result.text), result.describe()


def test_config__check_config_prints_all_and_masks_secrets(scene):
    variables = {"HARVEY_ARCHIVE": "s3://bucket/prefix", "HARVEY_S3_ENDPOINT": "http://127.0.0.1:1",
                 "HARVEY_S3_ACCESS_KEY_ID": "the-key", "HARVEY_S3_SECRET_ACCESS_KEY": "hush-hush"}
    done = run_server(scene, variables, "--check-config")
    assert done.returncode == 0, said(done)
    for word in ("HARVEY_DB", "HARVEY_SHIP_INTERVAL_MS", "1000", "HARVEY_ON_STALE", "refuse",
                 "s3://bucket/prefix", "HARVEY_STOP_TIMEOUT_MS", "8000"):
        assert word in said(done), word
    assert "hush-hush" not in said(done)
    assert not list(scene.volume.iterdir())


@pytest.mark.parametrize("binary", ["server", "restore"])
def test_config__help_version_and_unknown_options(scene, binary):
    done = run_server(scene, {}, "--help", binary=binary)
    assert done.returncode == 0 and "--" in done.stdout, said(done)
    done = run_server(scene, {}, "--version", binary=binary)
    assert done.returncode == 0 and any(letter.isdigit() for letter in done.stdout), said(done)
    done = run_server(scene, {}, "--frobnicate", binary=binary)
    assert done.returncode == 2 and "frobnicate" in done.stderr, said(done)


@pytest.mark.parametrize("arguments", [
    [], ["--to-latest", "--to-time", "2026-01-01T00:00:00Z"], ["--to-time"], ["--to-time", "noon"],
    ["--to-position", "1/2"], ["--to-latest", "--jobs", "0"], ["--to-latest", "--jobs", "many"],
    ["--to-latest", "--integrity", "some"], ["--to-latest", "--generation", "seven"],
    ["--to-latest", "surplus"]], ids=lambda arguments: " ".join(arguments) or "nothing")
def test_config__restore_usage(scene, arguments):
    done = run_server(scene, {}, *arguments, binary="restore")
    assert done.returncode == 2 and done.stderr, (done.returncode, said(done))
    assert not scene.database.exists()


def test_config__restore_from_an_empty_archive(scene, archive):
    result = scene.restore(archive).expect(3)
    where = str(archive.path) if archive.kind == "dir" else archive.bucket
    assert where in result.text, result.describe()
    assert not result.left_behind()


def test_config__restore_into_a_missing_directory(scene):
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    scene.rows(server, 3, clients=1)
    server.wait_snapshot()
    server.wait_archived()
    server.stop_clean()
    done = run_server(scene, archive.environment(), "--to-latest", "-o",
                      str(scene.dir / "no" / "such" / "state.db"), binary="restore")
    assert done.returncode == 7, (done.returncode, said(done))
    assert str(scene.dir / "no" / "such") in said(done)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_config__restore_never_overwrites(scene, suffix):
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    scene.rows(server, 3, clients=1)
    server.wait_snapshot()
    server.wait_archived()
    server.stop_clean()
    folder = scene.path("there")
    folder.mkdir()
    there = folder / f"state.db{suffix}"
    there.write_bytes(b"precious")
    result = run_restore(archive, folder / "state.db").expect(5)
    assert there.read_bytes() == b"precious" and there.name in result.text
    result = run_restore(archive, folder / "state.db", "--to-latest", "--replace").expect(0)
    kept = [path for path in folder.rglob("*")
            if path.is_file() and path.read_bytes() == b"precious"]
    assert len(kept) == 1, "--replace moves what was there aside"
    assert str(kept[0].name) in result.text or str(kept[0].parent.name) in result.text


def test_config__dry_run_and_list_touch_nothing(scene, archive):
    server = scene.server(archive).start_ready()
    scene.rows(server, 20)
    server.wait_snapshot()
    status = server.wait_archived()
    server.stop_clean()
    scene.wipe()
    before = archive.list()
    plan = scene.restore(archive, "--to-latest", "--dry-run").expect(0)
    reached = (status["generation"], status["archived"]["wal_no"], status["archived"]["frame_no"])
    assert reached in plan.positions(), plan.describe()
    listing = scene.restore(archive, "--list").expect(0)
    assert status["generation"] in listing.text
    for what in ("--to-latest", "--list"):
        text = scene.restore(archive, what, "--dry-run", "--json") if what == "--to-latest" else \
            scene.restore(archive, what, "--json")
        text.expect(0).json()
    assert archive.list() == before and not list(scene.volume.iterdir())
    done = scene.restore(archive, "--to-latest", "--json").expect(0)
    assert status["generation"] in str(done.json())
