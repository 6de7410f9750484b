# SPDX-License-Identifier: Apache-2.0
"""The door, black box: bin/door as a process, small app doubles in this one.

A double speaks the door's protocol (door/door_protocol.h) and nothing else of an app: it joins,
receives the listener, accepts, answers one-line requests, passes connections on. Ports come from
the kernel; nothing is waited for by sleeping, every wait has a deadline.
"""

import os
import re
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness.env import cannot_run, program
from harness.wait import until

PATIENCE_S = 60  # for what takes milliseconds

HELLO, LISTENER, CONN, ADOPTED, LEAVING, WANT_LISTENER, HEALTH = range(1, 8)
HAS_LISTENER = 1


class Door:
    """bin/door as a process on a socket of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.path = os.path.join(folder, "door.sock")
        self.process = None
        self.log = os.path.join(folder, "door.log")
        self.address = None

    def env(self, **more):
        env = {k: v for k, v in os.environ.items() if not k.startswith("HARVEY_DOOR_")}
        return {**env, "HARVEY_DOOR_SOCKET": self.path, **more}

    def start(self, listen="127.0.0.1:0", wait=True, **more):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [program("door")], stderr=log, env=self.env(HARVEY_DOOR_LISTEN=listen, **more))
        until(lambda: self.socket_is_there() or self.process.poll() is not None, "the door")
        if wait:
            until(lambda: self.health().returncode == 0, "a healthy door")
            found = re.findall(r"listening address=127\.0\.0\.1:(\d+)", Path(self.log).read_text())
            self.address = ("127.0.0.1", int(found[-1]))
        return self

    def socket_is_there(self):
        try:
            probe = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            probe.connect(self.path)
            probe.close()
            return True
        except OSError:
            return False

    def health(self):
        return subprocess.run([program("door"), "--health"], env=self.env(), capture_output=True,
                              text=True, timeout=PATIENCE_S)

    def counts(self):
        """(apps, parked)"""
        found = re.search(r"apps=(\d+) parked=(\d+)", self.health().stdout)
        return int(found[1]), int(found[2])

    def await_counts(self, apps, parked):
        until(lambda: self.counts() == (apps, parked), f"{apps} apps, {parked} parked")

    def leave_no_descriptor(self):
        """It may open none from now on; returns what undoes that."""
        pid = self.process.pid
        _, most = limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        in_use = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use, most))
        return lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)

    def sleeps(self):
        """How often it has slept so far: one that spins never does."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", status)[1])

    def await_sleeps(self, count):
        before = self.sleeps()
        until(lambda: self.sleeps() >= before + count, "the door to sleep between its looks")

    def stop(self, sig=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(PATIENCE_S) if self.process else None


class App:
    """A double of a server behind the door."""

    def __init__(self, door, listener=None):
        self.listener = listener
        self.conns = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(door.path)
        self.send(HELLO, HAS_LISTENER if listener else 0)

    def send(self, kind, flags=0, number=0, passed=None):
        message = struct.pack(">BBHII", 1, kind, flags, number, 0)
        if passed is None:
            self.socket.send(message)
        else:
            socket.send_fds(self.socket, [message], [passed.fileno()])

    def receive(self):
        """(kind, number, socket or None), or None when the door has closed."""
        message, fds, _, _ = socket.recv_fds(self.socket, 64, 4)
        if not message:
            return None
        version, kind, _, number, _ = struct.unpack(">BBHII", message)
        assert version == 1 and len(fds) == (1 if kind in (LISTENER, CONN) else 0)
        return kind, number, socket.socket(fileno=fds[0]) if fds else None

    def expect_listener(self):
        kind, _, self.listener = self.receive()
        assert kind == LISTENER
        return self

    def accept(self):
        self.listener.setblocking(False)
        assert select.select([self.listener], [], [], PATIENCE_S)[0]
        conn, _ = self.listener.accept()
        conn.settimeout(PATIENCE_S)
        self.conns.append(conn)
        return conn

    def adopt(self):
        kind, number, conn = self.receive()
        assert kind == CONN
        self.send(ADOPTED, number=number)
        conn.settimeout(PATIENCE_S)
        self.conns.append(conn)
        return conn

    def leave(self):
        """As a real server does it: says so, passes all it has, ends."""
        self.send(LEAVING)
        for conn in self.conns:
            self.send(CONN, passed=conn)
        self.die()

    def die(self):
        for held in [*self.conns, self.listener, self.socket]:
            if held:
                held.close()
        self.conns = []


def connect(door):
    client = socket.create_connection(door.address, PATIENCE_S)
    client.settimeout(PATIENCE_S)
    return client


def talk(client, server):
    client.sendall(b"question\n")
    assert server.recv(64) == b"question\n"
    server.sendall(b"answer\n")
    assert client.recv(64) == b"answer\n"


@pytest.fixture
def door(base_dir):
    with tempfile.TemporaryDirectory(prefix="door-", dir=base_dir) as folder:
        door = Door(folder)
        yield door
        door.stop(signal.SIGKILL)


def test_join_and_accept(door):
    door.start()
    first, second = App(door).expect_listener(), App(door).expect_listener()
    assert door.counts() == (2, 0)
    for app in (first, second):  # one queue: whoever accepts has it
        client = connect(door)
        talk(client, app.accept())
    mode = stat.S_IMODE(os.stat(door.path).st_mode)
    assert mode == 0o600
    assert door.stop() == 0
    assert not os.path.exists(door.path)


def test_connection_goes_on_in_the_sibling(door):
    door.start()
    leaver, stayer = App(door).expect_listener(), App(door).expect_listener()
    client = connect(door)
    talk(client, leaver.accept())
    client.sendall(b"question\n")  # on its way while the owner changes
    leaver.leave()
    adopted = stayer.adopt()
    assert adopted.recv(64) == b"question\n"
    adopted.sendall(b"answer\n")
    assert client.recv(64) == b"answer\n"
    talk(client, adopted)
    assert door.counts() == (1, 0)
    adopted.close()
    assert client.recv(64) == b""  # nobody else holds it


def test_one_app_released_over_and_over(door):
    """The same connections through twenty releases, and new ones while there is no app at all."""
    door.start()
    app = App(door).expect_listener()
    clients = [connect(door) for _ in range(50)]
    owners = {client.getsockname(): app.accept() for client in clients}
    for _ in range(20):
        app.leave()
        door.await_counts(0, len(clients))
        late = connect(door)  # waits in the kernel's queue
        app = App(door).expect_listener()
        for _ in clients:
            app.adopt()
        owners = {conn.getpeername(): conn for conn in app.conns}
        talk(late, app.accept())
        app.conns.pop().close()
        late.close()
        for client in clients:
            talk(client, owners[client.getsockname()])
    assert len(owners) == len(clients)


def test_parked_connections_are_delivered_on_join(door):
    door.start()
    leaver = App(door).expect_listener()
    clients = [connect(door) for _ in range(3)]
    for _ in clients:
        leaver.accept()
    leaver.leave()
    door.await_counts(0, 3)
    clients.pop(0).close()  # a peer that goes is dropped, unread
    door.await_counts(0, 2)
    app = App(door).expect_listener()
    servers = {conn.getpeername(): conn for conn in (app.adopt(), app.adopt())}
    for client in clients:
        talk(client, servers[client.getsockname()])
    door.await_counts(1, 0)


def test_killed_app_loses_nothing_that_it_had_not_adopted(door):
    door.start()
    leaver, victim = App(door).expect_listener(), App(door).expect_listener()
    client = connect(door)
    talk(client, leaver.accept())
    leaver.leave()
    assert select.select([victim.socket], [], [], PATIENCE_S)[0]  # it lies in the victim's queue
    victim.die()
    door.await_counts(0, 1)
    talk(client, App(door).expect_listener().adopt())


def test_stopped_app_attracts_few(door):
    door.start()
    leaver, stopped, healthy = (App(door).expect_listener() for _ in range(3))
    clients = [connect(door) for _ in range(150)]
    for _ in clients:
        leaver.accept()
    leaver.leave()
    for _ in range(150 - 32):  # the stopped one never says ADOPTED: a window is all it gets
        healthy.adopt()
    assert door.counts() == (2, 0)
    assert not select.select([healthy.socket], [], [], 0)[0]
    stopped.die()
    for _ in range(32):
        healthy.adopt()
    servers = {conn.getpeername(): conn for conn in healthy.conns}
    for client in clients:
        talk(client, servers[client.getsockname()])


# ---- somebody has to wait: the door's epoll set is readable all the while ----

def test_a_peer_without_a_descriptor_waits_and_the_door_sleeps(door):
    door.start()
    app = App(door).expect_listener()
    give_back = door.leave_no_descriptor()
    late = App(door)
    until(lambda: "a peer must wait" in Path(door.log).read_text(), "a word about it")
    door.await_sleeps(20)
    give_back()
    late.expect_listener()
    client = connect(door)
    app.accept()
    app.leave()
    talk(client, late.adopt())


def test_a_leaver_without_a_descriptor_waits_and_the_door_sleeps(door):
    door.start()
    leaver = App(door).expect_listener()
    clients = [connect(door) for _ in range(3)]
    for _ in clients:
        leaver.accept()
    give_back = door.leave_no_descriptor()
    leaver.leave()
    until(lambda: "a leaver must wait" in Path(door.log).read_text(), "a word about it")
    door.await_sleeps(20)
    give_back()
    app = App(door).expect_listener()
    servers = {conn.getpeername(): conn for conn in (app.adopt() for _ in clients)}
    for client in clients:
        talk(client, servers[client.getsockname()])


@pytest.mark.parametrize("message", [
    struct.pack(">BBHII", 2, HELLO, 0, 0, 0),     # another version
    struct.pack(">BBHII", 1, 99, 0, 0, 0),        # an unknown type
    struct.pack(">BBHII", 1, ADOPTED, 0, 1, 0),   # out of place
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x01",
])
def test_foreign_words_end_that_conversation_only(door, message):
    door.start()
    app = App(door).expect_listener()
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stranger.settimeout(PATIENCE_S)
    stranger.connect(door.path)
    stranger.send(message)
    assert stranger.recv(64) == b""
    client = connect(door)
    talk(client, app.accept())
    assert door.counts() == (1, 0)


def test_other_uid_is_refused(door):
    if os.geteuid() != 0:
        cannot_run("another user has to knock at the door, and only root can become one")
    door.start()
    os.chmod(Path(door.folder).parent, 0o755)
    os.chmod(door.folder, 0o755)
    os.chmod(door.path, 0o666)  # the file's mode must not be what refuses it here
    knock = ("import os, socket, sys\n"
             "os.setuid(65534)\n"
             "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
             "s.settimeout(60)\n"
             "s.connect(sys.argv[1])\n"
             "try:\n"
             "    s.send(bytes([1, 1] + [0] * 10))\n"
             "    sys.exit(len(s.recv(64)))\n"
             "except OSError:\n"
             "    sys.exit(0)\n")
    run = [sys.executable, "-c", knock, door.path]
    assert subprocess.run(run, timeout=PATIENCE_S * 2).returncode == 0
    assert "peer refused uid=65534" in Path(door.log).read_text()
    door.stop()
    door.start(HARVEY_DOOR_UID="65534")
    assert stat.S_IMODE(os.stat(door.path).st_mode) == 0o666
    assert subprocess.run(run, timeout=PATIENCE_S * 2).returncode == 12  # a message: the listener


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_restarted_door_asks_for_the_listener(door, sig):
    door.start()
    app = App(door).expect_listener()
    kept = connect(door)
    kept_server = app.accept()
    door.stop(sig)
    talk(kept, kept_server)      # no door: nobody notices
    talk(connect(door), app.accept())
    assert app.receive() is None
    listener = app.listener
    door.start(listen="%s:%d" % door.address, wait=False)
    assert door.health().returncode == 1
    newcomer = App(door)         # has none to give: waits
    app.socket.close()
    app.socket = App(door, listener).socket
    assert app.receive()[0] == WANT_LISTENER
    app.send(LISTENER, passed=listener)
    newcomer.expect_listener()
    assert door.health().returncode == 0
    assert door.counts() == (2, 0)
    talk(connect(door), newcomer.accept())
    app.leave()
    adopted = [newcomer.adopt(), newcomer.adopt()]
    owner = {conn.getpeername(): conn for conn in adopted}[kept.getsockname()]
    talk(kept, owner)


def test_restarted_door_waits_while_a_stranger_has_the_address(door):
    stranger = socket.create_server(("127.0.0.1", 0))
    door.start(listen="127.0.0.1:%d" % stranger.getsockname()[1], wait=False)
    assert door.health().returncode == 1
    stranger.close()
    until(lambda: door.health().returncode == 0, "the address")


def test_second_door_is_refused(door):
    door.start()
    second = subprocess.run([program("door")], env=door.env(HARVEY_DOOR_LISTEN="127.0.0.1:0"),
                            capture_output=True, text=True, timeout=PATIENCE_S * 2)
    assert second.returncode == 7 and "another door runs" in second.stderr
    App(door).expect_listener()


@pytest.mark.parametrize("name, value", [
    ("HARVEY_DOOR_LISTEN", "8080"), ("HARVEY_DOOR_LISTEN", "localhost:8080"),
    ("HARVEY_DOOR_LISTEN", "127.0.0.1:65536"), ("HARVEY_DOOR_UID", "-1"),
    ("HARVEY_DOOR_UID", "root"), ("HARVEY_DOOR_LISTN", "127.0.0.1:8080"),
    ("HARVEY_LOG_LEVEL", "loud"),
])
def test_bad_configuration_is_named(door, name, value):
    run = subprocess.run([program("door"), "--check-config"], env=door.env(**{name: value}),
                         capture_output=True, text=True, timeout=PATIENCE_S)
    assert run.returncode == 2 and name in run.stderr


def test_health_without_a_door(door):
    run = door.health()
    assert run.returncode == 1 and door.path in run.stderr
