# SPDX-License-Identifier: Apache-2.0
"""The `server` program: its process, its requests, its status."""

import http.client
import json
import signal
import socket
import threading
import time
from collections import namedtuple

from . import env
from .process import Port, Process, clean_environment
from .wait import Waited, until

Reply = namedtuple("Reply", "code headers body")
GONE = (ConnectionError, http.client.HTTPException, socket.timeout, OSError)


class Server(Process):
    """One server on a database path. `archive` gives HARVEY_ARCHIVE and its like; `settings` are
    further variables without their HARVEY_ prefix."""

    def __init__(self, scene, archive, database=None, name="server", binary=None, **settings):
        self.scene = scene
        self.archive = archive
        self.database = database or scene.database
        self.port = Port()
        self.settings = {"SHIP_INTERVAL_MS": 20, **settings}
        super().__init__(name, [binary or env.program("server")], None, scene.dir,
                         scene.dir / f"{name}.log")

    def environment(self):
        variables = {"HARVEY_DB": self.database,
                     "HARVEY_LISTEN": f"127.0.0.1:{self.port.number}"}
        variables.update(self.scene.filesystem_settings())
        variables.update(self.archive.environment() if self.archive else {"HARVEY_ARCHIVE": "none"})
        variables.update({f"HARVEY_{key}": value for key, value in self.settings.items()})
        return clean_environment(**variables)

    def start(self, **settings):
        """Starts it and does not wait for anything."""
        self.settings.update(settings)
        self.env = self.environment()
        self.spawn()
        return self

    def start_ready(self, **settings):
        return self.start(**settings).wait_ready()

    # ---- requests ----
    def connection(self, timeout_s=10):
        return http.client.HTTPConnection("127.0.0.1", self.port.number, timeout=timeout_s)

    def request(self, method, path, body=None, headers=None, timeout_s=10):
        connection = self.connection(timeout_s)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read().decode("utf-8", "replace"))
        finally:
            connection.close()

    def insert(self, value=None):
        """One row, acknowledged; its id."""
        reply = self.request("POST" if value is not None else "GET", "/", body=value)
        assert reply.code == 200, reply
        return int(reply.headers["Harvey-Row"])

    def insert_position(self, value):
        reply = self.request("POST", "/", body=value)
        assert reply.code == 200, reply
        return int(reply.headers["Harvey-Row"]), reply.headers.get("Harvey-Position")

    def status(self, timeout_s=10):
        reply = self.request("GET", "/status?format=json", timeout_s=timeout_s)
        assert reply.code == 200, reply
        return json.loads(reply.body)

    def try_status(self):
        """The status, or None where nothing answers."""
        try:
            return self.status()
        except GONE:
            return None

    def readyz(self):
        try:
            return self.request("GET", "/readyz")
        except GONE:
            return None

    # ---- waiting ----
    def _poll(self, condition, what, limit_s=None):
        def look():
            self.check_alive()
            return condition()
        try:
            return until(look, what, limit_s)
        except Waited as error:
            raise Waited(f"{error}\nstatus: {self.try_status()}\n{self.name}'s log ends:\n"
                         f"{self.log()[-3000:]}") from None

    def wait_status(self, condition, what, limit_s=None):
        """Polls /status until condition(status); returns that status."""
        def look():
            status = self.try_status()
            return status if status and condition(status) else None
        return self._poll(look, what, limit_s)

    def wait_ready(self, limit_s=None):
        def look():
            reply = self.readyz()
            return reply and reply.code == 200
        self._poll(look, f"{self.name} to be ready", limit_s)
        return self

    def wait_leader(self):
        return self.wait_status(lambda s: s["role"] == "leader" and s["ready"], "the lead")

    def wait_not_ready(self, *words, limit_s=None):
        """Waits until it is up, not ready, and its reason holds all the words (any case)."""
        def look():
            reply = self.readyz()
            if reply is None or reply.code != 503:
                return None
            status = self.try_status()
            reason = f"{status and status.get('reason')} {reply.body}"
            return reason if all(word.lower() in reason.lower() for word in words) else None
        return self._poll(look, f"{self.name} to be up, not ready, and say {words}", limit_s)

    def wait_archived(self, limit_s=None):
        """Everything committed so far is confirmed by the archive. Only where nothing writes."""
        return self.wait_status(
            lambda s: s["archived"] and s["local"] and s["lag"]["frames"] == 0
            and s["lag"]["ms"] == 0 and _position(s["archived"]) == _position(s["local"]),
            "the archive to hold everything", limit_s)

    def wait_snapshot(self):
        return self.wait_status(lambda s: s.get("snapshot"), "a complete snapshot")

    # ---- the end ----
    def stop(self, limit_s=None):
        """SIGTERM; its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(limit_s)

    def stop_clean(self):
        code = self.stop()
        assert code == 0, f"{self.name} ended with {code}; its log ends:\n{self.log()[-3000:]}"


def _position(point):
    return point["wal_no"], point["frame_no"]


def position_of(status, which="local"):
    return (status["generation"], *_position(status[which]))


class StatusSampler:
    """Asks for the status again and again, on a thread of its own, and keeps what a person would
    have seen: the promise is counted from there."""

    def __init__(self, server, pause_s=0.03):
        self.server = server
        self.pause_s = pause_s
        self.samples = 0
        self.last = None  # (when it was asked, status)
        self._promised_before = None
        self.lags_ms = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def _run(self):
        connection = None
        while not self._stop.is_set():
            asked = time.monotonic()
            try:
                connection = connection or self.server.connection(5)
                connection.request("GET", "/status?format=json")
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200:
                    status = json.loads(body)
                    self.last = (asked, status)
                    self.samples += 1
                    lag_ms = status["lag"]["ms"]
                    if lag_ms is not None:
                        self.lags_ms.append(lag_ms)
                        moment = asked - lag_ms / 1000
                        self._promised_before = max(moment, self._promised_before or moment)
            except (*GONE, ValueError):
                if connection:
                    connection.close()
                connection = None
            self._stop.wait(self.pause_s)
        if connection:
            connection.close()

    def stop(self):
        self._stop.set()
        self._thread.join()

    def promised_before(self):
        """Rows acknowledged before this moment (time.monotonic) are promised; None: no promise.
        Every status promises, whatever role it told: the furthest one counts."""
        return self._promised_before
