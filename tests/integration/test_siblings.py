# SPDX-License-Identifier: Apache-2.0
"""Goal: with a sibling behind the same door that can serve, no server answers 503 or closes a connection,
wherever it stands: starting, waiting for the lead, full, stopping. Without one it says why.

Method: servers with test hooks, held at a named step (base/failpoint.h, HARVEY_TEST_HOLD) as long as a file
exists; so a step lasts as long as the test wants, on any machine. TEST_NO_PATIENCE: a start counts as long
at once; TEST_LEAVE_FOR_EVER: a leaver waits for the door without a limit.
"""

import signal

import pytest

from harness import env
from harness.door import Door, behind, wait_joined
from harness.hold import Hold
from harness.raw import Raw, get, once, post
from harness.wait import holds_for, until

pytestmark = pytest.mark.skipif(env.is_slow_build(), reason="the hooks flavour is a build of its own")


@pytest.fixture
def door(scene):
    return scene.also_end(Door(scene.dir)).start()


def hooked(door, scene, archive=None, hold=None, **settings):
    binary = env.hooks_program("server")
    return behind(door, scene.server(archive, binary=binary,
                                     TEST_HOLD=hold.setting if hold else None, **settings))


def all_are_served(server, count=60):
    for _ in range(count):
        answer = once(server, get())
        assert answer and answer[0] == 200, answer


# ---- starting ----

def test_siblings__a_long_start_leaves_clients_to_the_sibling(door, scene):
    """The leader has gone, its sibling serves and is about to lead, and stands still there: a third one
    cannot serve yet, and lets nobody in. Its start counts as long."""
    archive = scene.archive()
    hold = Hold(scene, "start_compared")
    first = wait_joined(behind(door, scene.server(archive)).start())
    second = wait_joined(hooked(door, scene, archive, hold).start())
    first.stop_clean()
    hold.wait()
    third = hooked(door, scene, archive, TEST_NO_PATIENCE=1, name="third").start()
    until(lambda: "another process is starting to lead" in third.log(), "the third to follow")
    all_are_served(second)
    assert "joining" not in third.log()
    hold.end()
    wait_joined(third)
    all_are_served(third)
    second.stop_clean()
    all_are_served(third)
    third.stop_clean()


def test_siblings__a_short_start_is_waited_out(door, scene):
    """Nobody else is there, and the start is not a long one yet: a client waits, and is served."""
    hold = Hold(scene, "start_compared")
    lonely = hooked(door, scene, hold=hold).start()
    hold.wait()
    with Raw(lonely) as raw:
        raw.send(get())
        raw.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            raw.socket.recv(1)
        raw.socket.settimeout(60)
        hold.end()
        assert raw.answer()[0] == 200
    lonely.stop_clean()


def test_siblings__a_long_start_alone_is_told(door, scene):
    """Nobody else can serve: then clients are told, and served as soon as it can."""
    hold = Hold(scene, "start_compared")
    lonely = wait_joined(hooked(door, scene, hold=hold, TEST_NO_PATIENCE=1).start())
    answer = once(lonely, get())
    assert answer[0] == 503 and answer[1]["retry-after"] and "comparing" in answer[2]
    hold.end()
    lonely.wait_ready()
    all_are_served(lonely, 5)
    lonely.stop_clean()


def test_siblings__who_waits_for_a_word_leaves_clients_to_the_sibling(door, scene):
    """One does not know whether it may serve and says so to clients; another one, which was told by its
    settings, begins: from then on clients are the other one's, or the first follows it at once."""
    archive = scene.archive()
    server = wait_joined(behind(door, scene.server(archive)).start())
    server.insert("kept")
    server.wait_archived()
    generation = server.status()["generation"]
    server.stop_clean()
    scene.wipe()
    waiting = wait_joined(behind(door, scene.server(archive, name="waiting")).start())
    waiting.wait_not_ready("restore")
    told = behind(door, scene.server(archive, name="told", ON_EMPTY=f"new:{generation}"))
    wait_joined(told.start())
    until(lambda: "may not come" in waiting.log() or 'role="follower"' in waiting.log(),
          "the waiting one to step back, or to follow")
    all_are_served(told)
    told.stop_clean()
    waiting.stop_clean()


# ---- full ----

def test_siblings__a_full_one_leaves_clients_to_the_sibling(door, scene):
    servers = [wait_joined(behind(door, scene.server(None, name=name, CONNECTIONS_MAX=20)).start())
               for name in ("first", "second")]
    clients = []
    for _ in range(36):
        clients.append(Raw(servers[0]))
        answer = clients[-1].send(get()).answer()
        assert answer and answer[0] == 200, answer
    servers[0].stop_clean()  # more than the other one can hold: the rest is parked
    door.wait_counts(0)
    servers[0].start()
    for client in clients:
        answer = client.send(get()).answer()
        assert answer and answer[0] == 200, answer
        client.close()
    for server in servers:
        until(lambda server=server: "listening" in server.log() and (  # and so can take a signal
              "connections may come again" in server.log() or "may not come" not in server.log()),
              "room")
        server.stop_clean()


def test_siblings__full_in_a_burst(door, scene):
    """More clients at once than one has room for: it takes those, and the sibling, which has stood still
    meanwhile, gets all the others. None is told 503."""
    roomy = wait_joined(behind(door, scene.server(None, name="roomy")).start())
    all_are_served(roomy, 1)  # so it has told that it lets clients in
    small = wait_joined(behind(door, scene.server(None, name="small", CONNECTIONS_MAX=10)).start())
    for server in (roomy, small):
        server.freeze()
    clients = [Raw(small).send(get()) for _ in range(200)]
    small.thaw()
    until(lambda: "may not come" in small.log(), "the small one to be full")
    roomy.thaw()
    for client in clients:
        answer = client.answer()
        assert answer and answer[0] == 200, answer
        client.close()
    for server in (roomy, small):
        server.stop_clean()


# ---- stopping ----

def test_siblings__woken_for_clients_and_stopped(door, scene):
    """One server is woken per client. Told to stop in the breath in which it is woken, it takes them in all
    the same, and passes them on: nobody else knows of them. (32 are accepted at a time.)"""
    hold = Hold(scene, "http_clients_wait")
    server = wait_joined(hooked(door, scene, hold=hold).start())
    clients = [Raw(server).send(post("waits"))]
    hold.wait()
    clients += [Raw(server).send(post("waits")) for _ in range(40)]
    server.signal(signal.SIGTERM)
    until(lambda: "stopping" in server.log(), "the signal to be seen")
    hold.end()
    assert server.wait() == 0
    door.wait_counts(0, len(clients))
    new = wait_joined(behind(door, scene.server(None)).start())
    for client in clients:
        assert client.answer()[0] == 200
        client.close()
    new.stop_clean()


def test_siblings__woken_for_a_client_and_stuck(door, scene):
    """It stands still before it accepts: the sibling, which was not woken, looks by itself."""
    hold = Hold(scene, "http_clients_wait")
    stuck = wait_joined(hooked(door, scene, hold=hold).start())
    healthy = wait_joined(behind(door, scene.server(None)).start())
    clients = []
    while not hold.held.exists():
        clients.append(Raw(healthy).send(get()))
        assert clients[-1].answer()[0] == 200
        clients[-1].close()
    hold.end()
    stuck.stop_clean()
    healthy.stop_clean()


def test_siblings__the_door_is_busy_while_one_leaves(door, scene):
    """The door stands still: connections that it has no room for wait for it, and are not closed."""
    server = wait_joined(hooked(door, scene, TEST_LEAVE_FOR_EVER=1).start())
    clients = [Raw(server) for _ in range(400)]  # more than a queue of the kernel holds
    until(lambda: server.status()["connections"] == 401, "all to be taken in")
    door.freeze()
    server.signal(signal.SIGTERM)
    until(lambda: "passing connections on" in server.log(), "the stop to begin")
    holds_for(lambda: "draining" not in server.log(), 2, "it gave up what the door could have had")
    door.thaw()
    assert server.wait() == 0
    door.wait_counts(0, 400)
    new = wait_joined(behind(door, scene.server(None)).start())
    for client in clients:
        assert client.send(get()).answer()[0] == 200
        client.close()
    new.stop_clean()
