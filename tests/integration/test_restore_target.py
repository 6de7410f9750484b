# SPDX-License-Identifier: Apache-2.0
"""Goal: a restore touches nothing that is there, leaves nothing that is half, and whoever ends it, at whatever
moment, finds a place in which the next one succeeds.

Method: as in test_restore.py; things in the way, others that restore at once, signals and kill -9 at random
moments and (the flavour with failpoints) at each named step.
"""

import fcntl
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import time

import pytest

from harness import env
from harness.process import clean_environment
from harness.restoring import restore_argv, run_restore
from harness.stage import as_somebody_else, big, simple

F_OFD_SETLK = 37


def test_restore_target__target_in_the_way(stage):
    simple(stage)
    for name in ("r.db", "r.db-wal", "r.db-shm", "r.db-journal"):
        folder = stage.scene.path("there")
        folder.mkdir()
        (folder / name).write_bytes(b"precious")
        result = stage.run("--to-latest", target=folder / "r.db").expect(5)
        assert "--replace" in result.stderr and name in result.stderr
        assert [path.name for path in folder.iterdir()] == [name]
        result = stage.run("--to-latest", "--replace", "--json", target=folder / "r.db").expect(0)
        assert open(result.json()["moved_aside"], "rb").read() == b"precious"
    missing = stage.scene.dir / "no" / "such"
    stage.run("--to-latest", target=stage.scene.dir / "r.db").expect(0)
    done = subprocess.run(restore_argv(missing / "r.db", "--to-latest"), capture_output=True,
                          text=True, env=clean_environment(**stage.archive.environment()),
                          check=False)
    assert done.returncode == 7 and str(missing) in done.stderr


def test_restore_target__several_at_once_into_one_file(stage):
    """One of them makes the database, the others refuse; with --replace, too, nothing is mixed."""
    story, _ = simple(stage)
    environment = clean_environment(**stage.archive.environment())
    for option in ((), ("--replace",)) * 3:
        folder = stage.scene.path("shared")
        folder.mkdir()
        argv = restore_argv(folder / "r.db", "--to-latest", *option)
        running = [subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.PIPE, text=True) for _ in range(6)]
        said = [process.communicate()[1] for process in running]
        codes = sorted(process.returncode for process in running)
        assert codes[0] == 0 and set(codes) <= {0, 5}, (codes, said)
        assert option or codes == [0, 5, 5, 5, 5, 5], (codes, said)
        assert (folder / "r.db").read_bytes() == story.commits[-1].data
        assert (folder / "r.db-harvey" / "restored.json").exists()
        names = sorted(path.name for path in folder.iterdir())
        assert not [name for name in names if ".restoring-" in name], names
        asides = [name for name in names if name.count("before-restore") and "-harvey" not in name]
        assert len(asides) == codes.count(0) - 1, names
        for name in asides:
            assert (folder / name).read_bytes() == story.commits[-1].data


def test_restore_target__a_folder_that_may_not_be_written(stage):
    """As somebody who may not: exit 7, one line that names it, and nothing changed."""
    simple(stage)
    folder = stage.scene.path("locked")
    folder.mkdir()
    restore = as_somebody_else(stage)
    folder.chmod(0o555)
    try:
        for option in (), ("--replace",), ("--dry-run",):
            done = subprocess.run([*restore, "--to-latest", "-o", folder / "r.db", *option],
                                  capture_output=True, text=True, cwd="/", timeout=60,
                                  env=clean_environment(**stage.archive.environment()), check=False)
            assert done.returncode == (0 if option == ("--dry-run",) else 7), done
            if done.returncode:
                assert len(done.stderr.splitlines()) == 1 and str(folder) in done.stderr, done
            assert not list(folder.iterdir())
    finally:
        folder.chmod(0o755)


def test_restore_target__live_server(stage):
    simple(stage)
    folder = stage.scene.path("live")
    (folder / "r.db-harvey").mkdir(parents=True)
    with open(folder / "r.db-harvey" / "leader.lock", "w", encoding="ascii") as lock:
        fcntl.fcntl(lock, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        for option in (), ("--replace",):
            result = stage.run("--to-latest", *option, target=folder / "r.db").expect(5)
            assert "live server" in result.stderr
    stage.run("--to-latest", target=folder / "r.db").expect(0)


def test_restore_target__somebody_has_it_open(stage):
    """--replace takes no database from a program that has it open, whatever locks of ours are free."""
    simple(stage)
    folder = stage.scene.path("open")
    folder.mkdir()
    connection = sqlite3.connect(folder / "r.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE precious(value)")
    connection.commit()
    for _ in range(2):
        result = stage.run("--to-latest", "--replace", target=folder / "r.db").expect(5)
        assert "open" in result.stderr and "r.db" in result.stderr, result.describe()
        connection.execute("INSERT INTO precious VALUES(1)")
        connection.commit()
        assert sorted(path.name for path in folder.iterdir()) == ["r.db", "r.db-shm", "r.db-wal"]
    connection.close()
    stage.run("--to-latest", "--replace", target=folder / "r.db").expect(0)


def test_restore_target__the_leader_is_gone_and_a_sibling_serves(scene):
    """Between two leads nobody holds leader.lock; the sibling serves, and keeps its database."""
    archive = scene.archive("dir")
    leader = scene.server(archive).start_ready()
    leader.wait_leader()
    sibling = scene.server(archive).start_ready()
    scene.rows(sibling, 20)
    leader.wait_snapshot()
    leader.wait_archived()
    sibling.freeze()  # it would take the lock at once
    leader.kill()
    run_restore(archive, scene.database, "--to-latest", "--replace").expect(5)
    sibling.thaw()
    sibling.insert("still here")
    sibling.wait_leader()
    sibling.stop_clean()
    assert scene.source()[-1][1] == "still here" and scene.restored_rows(archive) == scene.source()


def test_restore_target__full_disk(stage):
    """A limit on the file's size stands for it: exit 7, nothing stays."""
    story, _ = simple(stage)
    assert len(story.commits[-1].data) > 20000
    folder = stage.scene.path("full")
    folder.mkdir()
    done = subprocess.run(["sh", "-c", 'ulimit -f 16; exec "$@"', "sh",
                           *restore_argv(folder / "r.db", "--to-latest")], capture_output=True,
                          text=True, env=clean_environment(**stage.archive.environment()),
                          check=False)
    assert done.returncode == 7, (done.returncode, done.stderr)
    assert len(done.stderr.splitlines()) == 1 and not list(folder.iterdir())


def test_restore_target__signals_leave_nothing(stage):
    data = big(stage)
    folder = stage.scene.path("out")
    folder.mkdir()
    argv = restore_argv(folder / "r.db", "--to-latest")
    environment = clean_environment(**stage.archive.environment())
    ends = set()
    for number in range(14):
        process = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, text=True)
        time.sleep(stage.scene.random.uniform(0.0, 0.25))  # the random moment itself
        process.send_signal((signal.SIGTERM, signal.SIGINT)[number % 2])
        said = process.communicate()[1]
        ends.add(process.returncode)
        if process.returncode == 0:
            assert (folder / "r.db").read_bytes() == data
            shutil.rmtree(folder)
            folder.mkdir()
        elif process.returncode == 1:
            assert "interrupted" in said and len(said.splitlines()) == 1, said
            assert not list(folder.iterdir()), list(folder.iterdir())
        else:
            assert process.returncode < 0, (process.returncode, said)  # before it took signals
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert 1 in ends, ends


def test_restore_target__killed_and_run_again(stage):
    """kill -9 at any moment: no database, or the whole one with its marker; the next run sweeps."""
    data = big(stage)
    folder = stage.scene.path("out")
    folder.mkdir()
    argv = restore_argv(folder / "r.db", "--to-latest")
    environment = clean_environment(**stage.archive.environment())
    left = 0
    for _ in range(14):
        process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)
        time.sleep(stage.scene.random.uniform(0.0, 0.3))  # the random moment itself
        process.kill()
        process.wait()
        if (folder / "r.db").exists():
            assert (folder / "r.db").read_bytes() == data
            assert (folder / "r.db-harvey" / "restored.json").exists()
            shutil.rmtree(folder)
            folder.mkdir()
        else:
            left += any(".restoring-" in path.name for path in folder.iterdir())
    if not (folder / "r.db").exists():
        stage.run("--to-latest", target=folder / "r.db").expect(0)
    assert sorted(path.name for path in folder.iterdir()) == ["r.db", "r.db-harvey"]
    print(f"{left} of 14 kills left a temporary file")


def test_restore_target__killed_at_each_step(stage):
    """The flavour with failpoints: dies at each named step, then runs through."""
    binary = env.hooks_program("restore")
    story, _ = simple(stage)
    for replace in (False, True):
        for step in ("restore_part_written", "restore_wal_applied", "restore_marker_written",
                     "restore_renamed"):
            folder = stage.scene.path("out")
            folder.mkdir()
            if replace:
                (folder / "r.db").write_bytes(b"precious")
                (folder / "r.db-harvey").mkdir()
            argv = [binary, "--to-latest", "-o", str(folder / "r.db"), "--replace"]
            variables = clean_environment(**stage.archive.environment())
            done = subprocess.run(argv, env={**variables, "HARVEY_TEST_FAILPOINT": f"{step}:1"},
                                  capture_output=True, check=False)
            assert done.returncode == -9, (step, done)
            there = (folder / "r.db").exists() and (folder / "r.db").read_bytes()
            assert there in (False, b"precious", story.commits[-1].data), step
            if there == story.commits[-1].data:
                assert (folder / "r.db-harvey" / "restored.json").exists()
            done = subprocess.run(argv, env=variables, capture_output=True, check=False)
            assert done.returncode == 0, done
            assert (folder / "r.db").read_bytes() == story.commits[-1].data
            files = [path for path in folder.rglob("*") if path.is_file()]
            assert not replace or any(path.read_bytes() == b"precious" for path in files)
            assert not any(".restoring-" in path.name for path in folder.iterdir())


@pytest.mark.parametrize("folder_is_there", [True, False])
def test_restore_target__killed_while_it_moves_things_aside(stage, folder_is_there):
    """--replace dies behind each move and runs again: what was there lies together under one name."""
    binary = env.hooks_program("restore")
    story, _ = simple(stage)
    for nth in (1, 2, 3, 4):
        folder = stage.scene.path("out")
        folder.mkdir()
        for name in ("r.db", "r.db-wal", "r.db-shm", "r.db-journal"):
            (folder / name).write_bytes(name.encode())
        if folder_is_there:
            (folder / "r.db-harvey" / "spool").mkdir(parents=True)
            (folder / "r.db-harvey" / "spool" / "precious").write_bytes(b"precious")
        argv = [binary, "--to-latest", "-o", str(folder / "r.db"), "--replace"]
        variables = clean_environment(**stage.archive.environment())
        died = subprocess.run(argv, capture_output=True, check=False, env={
            **variables, "HARVEY_TEST_FAILPOINT": f"restore_moved_aside:{nth}"})
        assert died.returncode == -9, died
        time.sleep(1.1 if nth == 1 else 0)  # another second: another name, if it were made anew
        done = subprocess.run(argv, env=variables, capture_output=True, check=False)
        assert done.returncode == 0, done
        assert (folder / "r.db").read_bytes() == story.commits[-1].data
        old = [path for path in folder.iterdir() if ".before-restore-" in path.name]
        files = {path.name.rpartition("Z")[2]: path.read_bytes() for path in old if path.is_file()}
        assert files == {end: f"r.db{end}".encode() for end in ("", "-wal", "-shm", "-journal")}
        assert len({path.name.rpartition("Z")[0] for path in old if path.is_file()}) == 1, old
        assert not list(folder.rglob("replacing"))
        if folder_is_there:
            kept = [path for path in folder.rglob("precious")]
            assert len(kept) == 1 and ".before-restore-" in str(kept[0])


def test_restore_target__odd_file_names(stage):
    story, _ = simple(stage)
    for name in ("with space.db", "a?b#c%41.db", "uml\u00e4ut", "-dash.db"):
        folder = stage.scene.path("out")
        folder.mkdir()
        result = stage.run("--to-latest", "--json", target=folder / name).expect(0)
        assert result.target.read_bytes() == story.commits[-1].data and result.json()["ok"]
