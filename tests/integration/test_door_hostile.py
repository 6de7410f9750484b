# SPDX-License-Identifier: Apache-2.0
"""The door and the servers behind it, killed and stopped at bad moments: who was not killed loses nothing."""

import json
import signal
import subprocess

import pytest

from harness import oracle
from harness.door import Door, behind, wait_joined
from harness.env import is_slow_build, program
from harness.raw import Raw, get
from harness.wait import until


@pytest.fixture
def door(scene):
    return scene.also_end(Door(scene.dir)).start()


def app(door, scene, **settings):
    return wait_joined(behind(door, scene.server(None, **settings)).start())


def openloop(door, mode):
    rate = 100 if is_slow_build() else 300
    return subprocess.Popen(
        [program("openloop"), "--host", "127.0.0.1", "--port", str(door.port), "--mode", mode,
         "--method", "POST", "--body", "x", "--rate", str(rate), "--seconds", "600",
         "--timeout-ms", "60000", "--rows-from-status", "--json"], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("mode", ["busy", "fresh"])
def test_door_hostile__killed_and_started_under_load(door, scene, mode):
    """kill -9 of the door, again and again, each time with a release before and after: the socket file that
    it leaves is no obstacle, the servers give the new one its listener, no request fails."""
    servers = [app(door, scene), app(door, scene)]
    client = openloop(door, mode)
    for number in range(4):
        door.signal(signal.SIGKILL)
        assert door.wait() == -signal.SIGKILL
        door.start()
        door.wait_counts(2, 0)
        servers[number % 2].stop_clean()
        wait_joined(servers[number % 2].start())
    client.send_signal(signal.SIGINT)
    report = json.loads(client.communicate()[0])
    assert client.returncode == 0 and report["failed"] == 0 and report["ok"] == report["sent"], report
    for server in servers:
        server.stop_clean()
    assert len(oracle.read_rows(scene.source_copy())) == report["ok"]


def test_door_hostile__a_server_is_killed_while_it_passes_on(door, scene):
    """The door stands still, so the leaver has passed what a queue holds and no more, and is killed: what it
    had passed lives on in the sibling, the rest is closed, nobody waits for ever."""
    leaver = app(door, scene)
    clients = [Raw(leaver) for _ in range(400)]
    until(lambda: leaver.status()["connections"] == 401, "all to be taken in")
    sibling = app(door, scene)
    door.freeze()
    leaver.signal(signal.SIGTERM)
    until(lambda: leaver.connections(door.port) < 400, "some to be passed")
    leaver.kill()
    door.thaw()
    door.wait_counts(1, 0)
    served = 0
    for client in clients:
        try:
            answer = client.send(get()).answer()
        except ConnectionError:
            answer = None
        assert answer is None or answer[0] == 200
        served += answer is not None
        client.close()
    assert 0 < served < 400
    sibling.stop_clean()
    assert len(oracle.read_rows(scene.source_copy())) == served


def test_door_hostile__a_stopped_server_gives_back_what_it_got(door, scene):
    """It stands still with a window of connections on their way to it. They are served when it goes on; the
    others by its sibling at once."""
    leaver, stopped, sibling = (app(door, scene) for _ in range(3))
    clients = []
    stopped.freeze()
    sibling.freeze()
    for _ in range(100):  # so that all of them are the leaver's
        clients.append(Raw(leaver))
        assert clients[-1].send(get()).answer()[0] == 200
    sibling.thaw()
    leaver.stop_clean()
    for client in clients:
        client.send(get())
    until(lambda: sum(is_answered(client) for client in clients) >= 100 - 32, "the sibling's part")
    stopped.thaw()
    for client in clients:
        assert client.answer()[0] == 200
        client.close()
    stopped.stop_clean()
    sibling.stop_clean()
    assert len(oracle.read_rows(scene.source_copy())) == 200


def is_answered(client):
    client.socket.setblocking(False)
    try:
        client.buffer += client.socket.recv(65536)
    except BlockingIOError:
        pass
    finally:
        client.socket.settimeout(60)
    return bool(client.buffer)


def test_door_hostile__a_file_at_its_path_stays(scene):
    """HARVEY_DOOR_SOCKET names somebody's file: exit 2, and the file is there."""
    precious = scene.dir / "precious"
    precious.write_text("mine")
    run = subprocess.run([program("door")], env={"HARVEY_DOOR_SOCKET": str(precious),
                                                 "HARVEY_DOOR_LISTEN": "127.0.0.1:0"},
                         capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "no socket" in run.stderr
    assert precious.read_text() == "mine"
