# SPDX-License-Identifier: Apache-2.0
"""Servers behind the door: a release loses no request and closes no connection."""

import json
import signal
import subprocess
import threading

import pytest

from harness import oracle
from harness.door import Door, behind, wait_joined
from harness.env import hooks_program, is_slow_build, program
from harness.raw import Raw, chunked, get, once, post
from harness.wait import until


RELEASES = 8


@pytest.fixture
def door(scene):
    return scene.also_end(Door(scene.dir)).start()


def app(door, scene, archive=None, **settings):
    return wait_joined(behind(door, scene.server(archive, **settings)).start())


def passed_on(server):
    """How many connections it says to have passed on, and to have cut."""
    line = next(line for line in server.log().splitlines() if "connections_passed=" in line)
    fields = dict(field.split("=") for field in line.split() if "=" in field)
    return int(fields["connections_passed"]), int(fields["connections_cut"])


def rows_on_disk(scene):
    return oracle.read_rows(scene.source_copy())


# ---- releases ----

def test_handover__one_app_keeps_every_connection(door, scene):
    """With nobody else there the door keeps them; what was sent meanwhile is answered by the next."""
    old = app(door, scene)
    clients = [Raw(old) for _ in range(700)]  # more than a queue of the kernel holds at once
    for client in clients[:50]:
        assert client.send(get()).answer()[0] == 200
    old.stop_clean()
    assert passed_on(old) == (700, 0)
    door.wait_counts(0, 700)
    for client in clients:
        client.send(post("while nobody was there"))
    new = app(door, scene)
    for client in clients:
        status, headers, _ = client.answer()
        assert status == 200 and "close" not in headers.get("connection", "").lower()
        client.close()
    new.stop_clean()
    assert len(rows_on_disk(scene)) == 750


def test_handover__a_sibling_takes_over(door, scene):
    archive = scene.archive()
    first = app(door, scene, archive)
    second = app(door, scene, archive)
    with Raw(first) as client:
        for round_number in range(6):
            assert client.send(post(f"round {round_number}")).answer()[0] == 200
            leaver = (first, second)[round_number % 2]
            leaver.stop_clean()
            assert client.send(post(f"gone {round_number}")).answer()[0] == 200
            wait_joined(leaver.start())
    first.wait_archived()
    generations = {status["generation"] for status in (first.status(), second.status())}
    first.stop_clean()
    second.stop_clean()
    assert len(generations) == 1
    rows = [value for _, value in rows_on_disk(scene)]
    assert rows == [f"{what} {n}" for n in range(6) for what in ("round", "gone")]
    assert scene.restored_rows(archive) == rows_on_disk(scene)


def test_handover__requests_under_way_are_answered_first(door, scene):
    """At SIGTERM: a head half sent, a body half sent, requests in a pipeline."""
    old = app(door, scene)
    head, body, pipeline = Raw(old), Raw(old), Raw(old)
    half = len(get()) // 2
    head.send(get()[:half])
    body.send(post("0123456789")[:-5])
    assert pipeline.send(get()).answer()[0] == 200
    pipeline.send(*[post(f"piped {n}") for n in range(50)])
    until(lambda: old.status()["connections"] == 4, "the clients to be seen")
    old.signal(signal.SIGTERM)
    until(lambda: "passing connections on" in old.log(), "the stop to begin")
    head.send(get()[half:])
    body.send("56789")
    assert head.answer()[0] == 200
    assert body.answer()[0] == 200
    new = app(door, scene)  # the pipeline may be passed at any of its boundaries
    for _ in range(50):
        assert pipeline.answer()[0] == 200
    assert old.wait() == 0
    assert passed_on(old) == (3, 0)
    for client in (head, body, pipeline):
        assert client.send(get()).answer()[0] == 200
        client.close()
    new.stop_clean()
    assert len(rows_on_disk(scene)) == 56


def test_handover__what_cannot_be_passed_is_drained(door, scene):
    """A chunked body's framing is not counted: such a connection is closed by the rules, after an
    answer that says so, and no other waits for it. The drain leaves a moment for a last request:
    where this process was not fast enough, it tries again."""
    for _ in range(20):
        if drained_with_a_last_answer(door, scene):
            return
    pytest.fail("no request of twenty arrived before the drain's end")


def drained_with_a_last_answer(door, scene):
    old = app(door, scene)
    with Raw(old) as odd, Raw(old) as even, Raw(old) as leaver:
        odd.send(get("/", "Transfer-Encoding: chunked", method="POST") + chunked("in ", "pieces"))
        assert odd.answer()[0] == 200
        assert even.send(get()).answer()[0] == 200
        assert leaver.send(get()).answer()[0] == 200
        old.signal(signal.SIGTERM)
        until(lambda: "draining" in old.log(), "the rest to be drained")
        answer = last_answer(odd)
        assert odd.is_closed()
        assert old.wait() == 0
        assert passed_on(old) == (2, 0)
        new = app(door, scene)
        assert even.send(get()).answer()[0] == 200
    new.stop_clean()
    assert answer is None or (answer[0], answer[1]["connection"].lower()) == (200, "close")
    return answer


def last_answer(raw):
    """Of a connection that the server may close in the same moment."""
    try:
        return raw.send(get()).answer()
    except ConnectionError:
        return None


@pytest.mark.parametrize("request_text", [
    get(version="HTTP/1.0"), get("/", "Connection: close")], ids=["1.0", "close"])
def test_handover__a_connection_that_ends_is_not_passed(door, scene, request_text):
    """The client reads to the end: whoever passed it on would let it wait for ever."""
    old = app(door, scene)
    clients = [Raw(old) for _ in range(50)]
    sender = threading.Thread(target=lambda: [client.send(request_text) for client in clients])
    sender.start()
    old.signal(signal.SIGTERM)
    sender.join()
    new = behind(door, scene.server(None)).start()  # takes those that had not been accepted, or were passed unread
    for client in clients:
        assert client.answer()[0] == 200
        assert client.is_closed()
    assert old.wait() == 0
    wait_joined(new).stop_clean()
    assert len(rows_on_disk(scene)) == 50


def test_handover__drain_by_choice(door, scene):
    old = app(door, scene, DOOR_CONNECTIONS="drain")
    with Raw(old) as client:
        assert client.send(get()).answer()[0] == 200
        old.stop_clean()
        assert passed_on(old)[0] == 0
        assert client.is_closed()
    door.wait_counts(0, 0)


@pytest.mark.skipif(is_slow_build(), reason="the hooks flavour is a build of its own")
@pytest.mark.parametrize("why_away", ["the door is restarted", "the server is full"])
def test_handover__drain_by_choice_finds_the_door_late(door, scene, why_away):
    """Not joined when it is told to stop, and joined during the drain (which lasts as long as the test wants):
    the door is told, a new one gets the listener, so that nobody in its queue is lost; no connection goes."""
    server = app(door, scene, binary=hooks_program("server"), DOOR_CONNECTIONS="drain", CONNECTIONS_MAX=4,
                 TEST_LEAVE_FOR_EVER=1)
    clients = [Raw(server).send(get()) for _ in range(4 if "full" in why_away else 2)]
    for client in clients:
        assert client.answer()[0] == 200
    slow = clients[-1].send(post("0123456789")[:-5])
    if "full" in why_away:
        until(lambda: "may not come" in server.log(), "it to be full")
    else:
        door.signal(signal.SIGTERM)
        assert door.wait() == 0
    joins = door.log().count("app joined")
    server.signal(signal.SIGTERM)
    until(lambda: "draining" in server.log(), "the stop to begin")
    late = Raw(server).send(get())  # waits in the kernel's queue
    if "restarted" in why_away:
        joins = 0
        door.start()
    until(lambda: server.check_alive() or door.log().count("app joined") > joins, "it to find the door")
    status, headers, _ = slow.send("56789").answer()
    assert (status, headers["connection"].lower()) == (200, "close")
    assert server.wait() == 0
    assert passed_on(server)[0] == 0
    for client in clients:
        assert client.is_closed()
        client.close()
    new = app(door, scene)
    assert late.answer()[0] == 200
    late.close()
    new.stop_clean()


# ---- full ----

def test_handover__a_release_fills_the_sibling(door, scene):
    """The sibling becomes full in a breath, by new clients (32 at a time) and by what a leaver passes to it (64):
    it takes what it has room for, and no more; the rest is another one's, which has stood still meanwhile."""
    limit = 272
    roomy = app(door, scene, name="roomy")
    assert once(roomy, get())[0] == 200  # so it has told that it lets clients in
    leaver = app(door, scene)
    sibling = app(door, scene, name="sibling", CONNECTIONS_MAX=limit)
    sibling.freeze()
    roomy.freeze()
    clients = [Raw(leaver) for _ in range(600)]
    for client in clients:
        assert client.send(get()).answer()[0] == 200
    leaver.stop_clean()
    clients += [Raw(sibling) for _ in range(400)]
    sibling.thaw()
    until(lambda: "may not come" in sibling.log(), "it to be full")
    assert sibling.connections(door.port) <= limit
    roomy.thaw()
    for client in clients:
        answer = client.send(get()).answer()
        assert answer and answer[0] == 200, answer
    for client in clients:
        client.close()
    for server in (sibling, roomy):
        server.stop_clean()


def test_handover__a_full_server_passes_all_on(door, scene):
    """Full, and so away from the door: at a stop it comes back to it, and waits for room there."""
    server = app(door, scene, CONNECTIONS_MAX=400)
    clients = [Raw(server) for _ in range(400)]  # more than a queue of the kernel holds
    for client in clients:
        assert client.send(get()).answer()[0] == 200
    until(lambda: "may not come" in server.log(), "it to be full")
    server.stop_clean()
    assert passed_on(server) == (400, 0)
    door.wait_counts(0, 400)
    new = app(door, scene)
    for client in clients:
        assert client.send(get()).answer()[0] == 200
        client.close()
    new.stop_clean()


# ---- the door, absent or restarted ----

def test_handover__the_door_is_restarted(door, scene):
    """Servers go on, give the new door the listener, and the next release passes as before."""
    first, second = app(door, scene), app(door, scene)
    with Raw(first) as client:
        assert client.send(get()).answer()[0] == 200
        door.signal(signal.SIGTERM)
        assert door.wait() == 0
        assert client.send(get()).answer()[0] == 200
        assert once(first, get())[0] == 200
        door.start()
        door.wait_counts(2)
        first.stop_clean()
        assert client.send(get()).answer()[0] == 200
        second.stop_clean()
        door.wait_counts(0, 1)
        new = app(door, scene)
        assert client.send(get()).answer()[0] == 200
    new.stop_clean()


def test_handover__no_door_at_the_stop(door, scene):
    """Looked for until the deadline; then a drain: every request sent is answered, exit 0."""
    server = app(door, scene)
    with Raw(server) as client:
        assert client.send(get()).answer()[0] == 200
        door.signal(signal.SIGTERM)
        assert door.wait() == 0
        server.signal(signal.SIGTERM)
        status, headers, _ = client.send(get()).answer()
        assert status == 200
        assert server.wait() == 0
        assert client.is_closed()
    assert len(rows_on_disk(scene)) == 2


def test_handover__the_door_comes_back_during_the_stop(door, scene):
    server = app(door, scene)
    with Raw(server) as client:
        assert client.send(get()).answer()[0] == 200
        door.signal(signal.SIGTERM)
        assert door.wait() == 0
        server.signal(signal.SIGTERM)
        until(lambda: "passing connections on" in server.log(), "the stop to begin")
        door.start()
        assert server.wait() == 0
        assert passed_on(server) == (1, 0)
        new = app(door, scene)
        assert client.send(get()).answer()[0] == 200
    new.stop_clean()


def test_handover__no_door_at_the_start(scene):
    """It waits for one, says so, and stops when told to."""
    door = scene.also_end(Door(scene.dir))
    server = behind(door, scene.server(None)).start()
    until(lambda: "no door yet" in server.log(), "a word about the door")
    door.start()
    wait_joined(server)
    assert once(server, get())[0] == 200
    server.stop_clean()
    lonely = behind(door, scene.server(None))
    door.signal(signal.SIGTERM)
    assert door.wait() == 0
    lonely.start()
    until(lambda: "joining" in lonely.log(), "it to look for the door")
    lonely.stop_clean()


# ---- servers that do not leave in order ----

def test_handover__a_killed_server_costs_its_own_connections_only(door, scene):
    first, second = app(door, scene), app(door, scene)
    first.kill()
    for _ in range(20):
        assert once(second, get())[0] == 200
    second.stop_clean()
    assert len(rows_on_disk(scene)) == 20


def test_handover__a_stopped_server_attracts_no_new_client(door, scene):
    """SIGSTOP: the sibling accepts from the same queue."""
    first, second = app(door, scene), app(door, scene)
    first.freeze()
    try:
        for _ in range(20):
            assert once(second, get())[0] == 200
    finally:
        first.thaw()
    first.stop_clean()
    second.stop_clean()


def test_handover__a_second_signal_ends_the_wait(door, scene):
    server = app(door, scene)
    with Raw(server) as client:
        client.send(post("0123456789")[:-5])
        until(lambda: server.status()["connections"] == 2, "the client to be seen")
        server.signal(signal.SIGTERM)
        until(lambda: "passing connections on" in server.log(), "the stop to begin")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        answer = client.answer()
        assert answer and answer[0] == 503 and "retry-after" in answer[1], answer
        assert client.is_closed()


def test_handover__who_cannot_serve_says_why(door, scene):
    """An empty volume under a full archive: not ready, but not silent."""
    archive = scene.archive()
    server = app(door, scene, archive)
    server.insert("kept")
    server.wait_archived()
    server.stop_clean()
    scene.wipe()
    server.start()
    assert "HARVEY_ON_EMPTY" in server.wait_not_ready("restore")
    server.stop_clean()


# ---- under load ----

@pytest.mark.parametrize("mode", ["busy", "idle", "fresh"])
@pytest.mark.parametrize("apps", [1, 2])
def test_handover__open_loop(door, scene, mode, apps):
    """No request fails, no connection is closed, and each 200 is a row; counted by a client that
    never retries."""
    archive = scene.archive()
    servers = [app(door, scene, archive) for _ in range(apps)]
    rate = 100 if is_slow_build() else 400
    client = subprocess.Popen(
        [program("openloop"), "--host", "127.0.0.1", "--port", str(door.port), "--mode", mode,
         "--method", "POST", "--body", "x", "--rate", str(rate), "--seconds", "600",
         "--timeout-ms", "60000", "--rows-from-status", "--json"], stdout=subprocess.PIPE, text=True)
    for number in range(RELEASES):
        servers[number % apps].stop_clean()
        wait_joined(servers[number % apps].start())
    client.send_signal(signal.SIGINT)
    report = json.loads(client.communicate()[0])
    print(report)
    assert client.returncode == 0
    assert report["failed"] == 0 and report["ok"] == report["sent"]
    if mode != "fresh":
        assert report["reconnects"] == 0
    for server in servers:
        server.stop_clean()
    assert len(rows_on_disk(scene)) == report["ok"]
    assert scene.restored_rows(archive) == rows_on_disk(scene)
