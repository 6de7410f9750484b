# SPDX-License-Identifier: Apache-2.0
"""Goal: a host that is short of something, or has something in the way, is told with a word, costs no
acknowledged row, and is survived by the same process where it lasts only for a while.

Method: limits on descriptors and threads, at the start and in mid-run; a volume that turns read-only (a
loop mount, root) and back; the leader stopped; a folder, a socket, a FIFO or an unreadable file where each
of the server's files is expected.
"""

import os
import resource
import socket
import subprocess
import time

import pytest

from harness import env, oracle
from harness.host import Faults
from harness.load import Ledger
from harness.wait import holds_for, until

# a limit on a sanitizer's build measures the sanitizer
pytestmark = pytest.mark.skipif(env.is_slow_build(), reason="limits are for the release build")


def ended_with_a_word(server, *codes):
    """It ended by itself with one of these, and its last word says what is wrong."""
    code = server.wait()
    told = [line for line in server.log().splitlines() if line.startswith("server: ")]
    assert code in codes and told and len(told[-1]) > 20, f"exit {code}, said {told}: {server.log()}"
    return told[-1]


def goes_on(scene, server, ledger):
    """Ready, everything archived, every acknowledged row in source and restore."""
    server.wait_ready()
    scene.rows(server, 5, ledger)
    server.wait_snapshot()
    server.wait_archived()
    status = server.wait_status(lambda s: not s["alarm"], "nothing red")
    server.stop_clean()
    rows = scene.restored_rows(server.archive)
    assert oracle.compare(rows, scene.source(), ledger, time.monotonic()).lost == 0
    return status


# ---- descriptors and threads ----
def limited(server, what, count):
    """The server will start under that limit."""
    server.argv = [env.tool("prlimit"), f"--{what}={count}", *server.argv]
    return server


@pytest.mark.parametrize("count", [
    pytest.param(count, marks=[] if count == 20 else [pytest.mark.slow])
    for count in range(4, 60, 1)])
def test_host_limits__few_descriptors_at_the_start(scene, count):
    """It ends with a word, or serves and replicates; it never hangs and never half works in silence."""
    archive = scene.archive("dir")
    server = limited(scene.server(archive), "nofile", count).start()
    ledger = Ledger()

    def settled():
        if not server.is_alive():
            return "ended"
        status = server.try_status()
        return status and (status["ready"] and status["snapshot"] and "works"
                           or status["reason"] and status["alarm"] and "red"
                           or status["reason"] and not status["ready"]
                           and "comparing" not in status["reason"] and "says why")
    how = until(settled, f"a start with {count} descriptors to come to something, or to say why")
    if how == "ended":
        ended_with_a_word(server, 1, 7)
    elif how == "works":
        scene.rows(server, 5, ledger, clients=1)
    server.kill()
    goes_on(scene, scene.server(archive).start(), ledger)


def test_host_limits__no_descriptor_in_mid_run(scene):
    """Nothing new can be opened for a while: rows go on over what is open; then all is archived."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    server.wait_snapshot()
    server.wait_archived()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=2).start()
    load.wait_acks(10)
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (8, limits[1]))
    load.wait_acks(50)
    until(lambda: "cannot open" in server.log() or "open files" in server.log().lower(),
          "a failed open to be told")
    server.check_alive()
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
    load.stop()
    goes_on(scene, server, ledger)
    assert len(archive.generations()) == 1


@pytest.mark.parametrize("allowed", [
    pytest.param(count, marks=[] if count in (0, 2, 5) else [pytest.mark.slow]) for count in range(9)])
def test_host_limits__few_threads_at_the_start(scene, allowed):
    """As with RLIMIT_NPROC (which root does not feel): from the n-th on no thread can be made."""
    archive = scene.archive("dir")
    faults = Faults(scene)
    server = faults.on(scene.server(archive))
    faults.order("thread", "EAGAIN", first=allowed + 1, for_good=True)
    server.start()

    def settled():
        if not server.is_alive():
            return "ended"
        status = server.try_status()
        return status and (status["ready"] and status["snapshot"] and "works"
                           or (status["alarm"] or not status["ready"]) and faults.failed() > 0
                           and status["reason"] and "red")
    how = until(settled, f"a start with {allowed} threads to come to something, or to say why")
    if how == "ended":
        assert "thread" in ended_with_a_word(server, 1, 7)
    ledger = Ledger()
    faults.clear()
    if how == "ended":
        server.start()
    goes_on(scene, server, ledger)


def test_host_limits__no_thread_in_mid_run(scene):
    """No thread for the next snapshot: red, rows go on being archived, and it is made when there is one."""
    archive = scene.archive("dir")
    faults = Faults(scene)
    server = faults.on(scene.server(archive, SNAPSHOT_INTERVAL_S=1)).start_ready()
    server.wait_snapshot()
    faults.order("thread", "EAGAIN", for_good=True)
    ledger = scene.rows(server, 10)
    status = server.wait_status(lambda s: s["alarm"], "it to be told")
    assert "thread" in status["reason"], status["reason"]
    before = status["snapshot"]
    server.wait_archived()
    assert faults.failed() < 200, "it tries without a pause"
    faults.clear()
    server.wait_status(lambda s: s["snapshot"]["frame_no"] != before["frame_no"], "the next snapshot")
    goes_on(scene, server, ledger)


# ---- a volume that turns read-only ----
@pytest.fixture
def mounted(scene):
    """scene.volume on an ext4 of its own in a file."""
    if os.geteuid() != 0:
        env.cannot_run("a loop mount needs root")
    scene.image = scene.path("image")
    with open(scene.image, "wb") as file:
        file.truncate(96 << 20)
    subprocess.run([env.tool("mkfs.ext4"), "-q", "-F", scene.image], check=True)
    done = mount(scene)
    if done.returncode != 0:
        env.cannot_run(f"no loop mount here: {done.stderr.strip()}")
    yield scene
    scene.end()
    subprocess.run([env.tool("umount"), "-l", scene.volume], check=os.path.ismount(scene.volume))


def mount(scene, options="rw"):
    return subprocess.run([env.tool("mount"), "-o", f"loop,{options}", scene.image, scene.volume],
                          capture_output=True, text=True, check=False)


def mount_again(scene, options="rw"):
    subprocess.run([env.tool("umount"), scene.volume], check=True)
    until(lambda: mount(scene, options).returncode == 0, "the mount")


@pytest.mark.root
@pytest.mark.slow
def test_host_limits__the_volume_turns_read_only(mounted):
    """In mid-run, as the kernel does after an error of the disk: every row meets an answer, and it is told.
    Mounted anew all goes on in one generation. At a start: exit 7, with a word."""
    scene = mounted
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    server.wait_snapshot()
    ledger = Ledger()
    scene.rows(server, 30, ledger)
    server.wait_archived()  # ext4's fdatasync says 0 for what it drops in the moment of this abort (6.18)
    done = subprocess.run([env.tool("mount"), "-o", "remount,abort", scene.volume], capture_output=True,
                          text=True, check=False)
    if done.returncode != 0:
        env.cannot_run(f"this kernel does not abort a filesystem: {done.stderr.strip()}")
    load = scene.load(server, ledger, clients=3).start()
    status = server.wait_status(lambda s: s["alarm"] or not s["ready"], "it to be told")
    until(lambda: ledger.errors, "a row to be refused")
    server.check_alive()
    load.stop()
    wrong = [what for _, what in ledger.errors if not what.startswith("5")]
    assert not wrong, wrong[:3]
    print(f"read-only: {status['reason']!r}, {ledger.errors[0]}")
    assert server.stop() == 0
    mount_again(scene)  # the journal is replayed
    mount_again(scene, "ro")
    server.start()
    assert "Read-only" in ended_with_a_word(server, 7)
    mount_again(scene)
    goes_on(scene, server.start(), ledger)
    assert len(archive.generations()) == 1


@pytest.mark.root
@pytest.mark.slow
def test_host_limits__the_volume_stands_still(mounted):
    """Every write waits (fsfreeze) for a while: the status answers, its lag grows, all goes on after."""
    scene = mounted
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    server.wait_snapshot()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=2).start()
    load.wait_acks(30)
    subprocess.run([env.tool("fsfreeze"), "--freeze", scene.volume], check=True)
    try:
        holds_for(lambda: server.request("GET", "/livez").code == 200, 3, "it answers")
        server.status()
    finally:
        subprocess.run([env.tool("fsfreeze"), "--unfreeze", scene.volume], check=True)
    load.wait_acks(30)
    load.stop()
    goes_on(scene, server, ledger)
    assert len(archive.generations()) == 1


# ---- a leader that stands still ----
@pytest.mark.slow
@pytest.mark.parametrize("wakes", [True, False], ids=["thawed", "killed"])
def test_host_limits__the_leader_stopped_for_long(scene, wakes):
    """Longer than every time-out of ours: the sibling writes on and is red; nothing is promised meanwhile
    that the archive lacks. Thawed, the leader goes on; killed, the sibling takes the lead."""
    archive = scene.archive("dir")
    leader = scene.server(archive, name="leader").start_ready()
    leader.wait_leader()
    leader.wait_snapshot()
    sibling = scene.server(archive, name="sibling").start_ready()
    ledger = Ledger()
    # only the sibling's writer: a process that stops inside a commit keeps SQLite's write lock
    load = scene.load(sibling, ledger, clients=3).start()
    load.wait_acks(50)
    leader.freeze()
    sampler = scene.sampler(sibling)
    load.wait_acks(50)
    sibling.wait_status(lambda s: s["alarm"] and "stood still" in (s["reason"] or ""), "the sibling to be red")
    holds_for(lambda: sibling.readyz().code == 200, 6, "the sibling serves on")
    sampler.stop()
    rows = scene.restored_rows(archive)  # what dies now is the host with both
    oracle.compare(rows, None, ledger, sampler.promised_before(), "while the leader stood still")
    if wakes:
        leader.thaw()
        load.wait_acks(50)
    else:
        leader.kill()
        sibling.wait_leader()
        load.wait_acks(20)
    load.stop()
    if wakes:
        leader.wait_archived()
        leader.stop_clean()
    goes_on(scene, sibling, ledger)
    assert len(archive.generations()) == 1


# ---- something in the way ----
def folder(path):
    path.mkdir()


def full_folder(path):
    path.mkdir()
    (path / "something").write_text("here\n")


def a_socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def a_fifo(path):
    os.mkfifo(path)


def dangling(path):
    path.symlink_to(path.parent / "nowhere" / "at-all")


def noise(path):
    path.write_bytes(bytes(range(256)) * 40)


WAYS = {"folder": folder, "full_folder": full_folder, "socket": a_socket, "fifo": a_fifo,
        "dangling_link": dangling, "noise": noise}
# name below the volume: what stands there is the server's own business, and may be replaced
PLACES = {
    "state.db": (), "state.db-wal": (), "state.db-shm": (), "state.db-journal": (), "state.db-harvey": (),
    "state.db-harvey/leader.lock": ("noise",), "state.db-harvey/serving.lock": ("noise",),
    "state.db-harvey/state": (), "state.db-harvey/spool": (), "state.db-harvey/snapshot": (),
    "state.db-harvey/restored.json": (), "state.db-harvey/health.sock": (),
}
QUICK = [("state.db-wal", "folder"), ("state.db-harvey/state", "fifo"),
         ("state.db-harvey/restored.json", "fifo"), ("state.db-harvey/health.sock", "full_folder")]


@pytest.mark.parametrize("way, place", [
    pytest.param(way, place, id=f"{way}-{place.replace('state.db', '').strip('-/') or 'database'}",
                 marks=[] if (place, way) in QUICK else [pytest.mark.slow])
    for place in PLACES for way in WAYS])
def test_host_limits__in_the_way(scene, place, way):
    """It ends with a word that names it, or waits and says so, or goes on without harm; it does not hang,
    and with the thing gone it works."""
    archive = scene.archive("dir")
    path = scene.volume / place
    path.parent.mkdir(exist_ok=True)
    WAYS[way](path)
    server = scene.server(archive).start()

    def settled():
        if not server.is_alive():
            return "ended"
        status = server.try_status()
        if status and status["ready"] and status["snapshot"] and status["archived"]:
            return "works"
        return status and status["reason"] and "comparing" not in status["reason"] and "says why"
    how = until(settled, f"a start with a {way} at {place} to come to something")
    if how == "ended":
        word = ended_with_a_word(server, 1, 2, 7)
        assert path.name in word, f"{word} does not name {path.name}"
    elif how == "says why":
        reason = server.status()["reason"]
        assert "state.db" in reason or path.name in reason, reason
    ledger = Ledger()
    if how == "works":
        scene.rows(server, 5, ledger, clients=1)
        server.wait_archived()
        server.kill()
    elif how == "says why":
        server.kill()
    print(f"{way} at {place}: {how}")
    if how != "works":
        path.rename(scene.path("moved-aside"))
    server = scene.server(archive).start()
    goes_on(scene, server, ledger)


def test_host_limits__a_folder_at_the_listening_socket(scene):
    """HARVEY_LISTEN=unix:PATH, and somebody's folder or file is there: refused, and left alone."""
    archive = scene.archive("dir")
    for way in (folder, noise):
        path = scene.path("listen")
        way(path)
        server = scene.server(archive, LISTEN=f"unix:{path}").start()
        assert str(path) in ended_with_a_word(server, 7)
        assert path.exists() and not path.is_socket()
