# SPDX-License-Identifier: Apache-2.0
"""Clients that write rows, and the ledger of what was acknowledged to them.

The ledger lives outside the server: in this process's memory, and for long runs in a file that is
fsynced too. Every payload is unique, so a restored row tells who wrote it and when.
"""

import http.client
import itertools
import json
import os
import threading
import time
from collections import namedtuple

from .server import GONE

Ack = namedtuple("Ack", "client sequence payload acknowledged row position")


class Ledger:
    """What was sent and what was acknowledged since the last restore ("a life")."""

    _lives = itertools.count(1)

    def __init__(self, path=None, mark=None, sync_every=1):
        self._sync_every = sync_every  # acknowledgements per fsync of the file
        self.mark = mark or f"{os.getpid()}.{next(self._lives)}"
        self.acks = []
        self.sent = set()          # every payload that went out, answered or not
        self.errors = []           # (time, what): answers other than 200, broken connections
        self._lock = threading.Lock()
        self._file = open(path, "a", encoding="ascii") if path else None

    def payload(self, client, sequence):
        text = f"life {self.mark} client {client} row {sequence}"
        with self._lock:
            self.sent.add(text)
        return text

    def ack(self, ack):
        with self._lock:
            self.acks.append(ack)
            if self._file:
                self._file.write(json.dumps(ack) + "\n")
                if len(self.acks) % self._sync_every == 0:
                    self._file.flush()
                    os.fsync(self._file.fileno())

    def error(self, what):
        with self._lock:
            self.errors.append((time.monotonic(), what))

    def acked_before(self, moment):
        if moment is None:
            return []
        return [ack for ack in self.acks if ack.acknowledged < moment]

    def close(self):
        if self._file:
            self._file.close()


class Load:
    """`clients` threads, each with one kept-alive connection, each sending one row after another
    with a pause between. They go on through errors (the server may be killed or not ready) until
    stop()."""

    def __init__(self, servers, ledger, clients=6, pause_s=0.004, payload_bytes=0):
        self.servers = servers if isinstance(servers, (list, tuple)) else [servers]
        self.ledger = ledger
        self.pause_s = pause_s
        self.payload_bytes = payload_bytes
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(index,), daemon=True)
                         for index in range(clients)]

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def wait_acks(self, count, limit_s=60):
        """Until that many more rows were acknowledged."""
        want = len(self.ledger.acks) + count
        deadline = time.monotonic() + limit_s
        while len(self.ledger.acks) < want:
            if not any(server.is_alive() for server in self.servers):
                self.servers[0].check_alive()
            assert time.monotonic() < deadline, (
                f"{len(self.ledger.acks)} of {want} rows after {limit_s} s; "
                f"errors end: {self.ledger.errors[-3:]}")
            time.sleep(0.01)

    def _client(self, index):
        server = self.servers[index % len(self.servers)]
        connection = None
        for sequence in itertools.count(1):
            if self._stop.is_set():
                break
            payload = self.ledger.payload(index, sequence)
            if self.payload_bytes > len(payload):
                payload = payload.ljust(self.payload_bytes, ".")
                self.ledger.sent.add(payload)
            pause_s = self.pause_s
            try:
                connection = connection or server.connection()
                connection.request("POST", "/", body=payload)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200:
                    self.ledger.ack(Ack(index, sequence, payload, time.monotonic(),
                                        int(answer.headers["Harvey-Row"]),
                                        answer.headers.get("Harvey-Position")))
                else:
                    self.ledger.error(f"{answer.status} {body[:200]!r}")
                    pause_s = 0.05
            except (*GONE, http.client.HTTPException) as error:
                self.ledger.error(repr(error))
                if connection:
                    connection.close()
                connection = None
                pause_s = 0.05
            self._stop.wait(pause_s)
        if connection:
            connection.close()
