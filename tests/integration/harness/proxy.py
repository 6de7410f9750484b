# SPDX-License-Identifier: Apache-2.0
"""A TCP relay on loopback before a store: counts connections, requests and bytes, and can hold
every request back for a while or refuse service."""

import re
import selectors
import socket
import threading
import time

_REQUEST = re.compile(rb"^(GET|PUT|HEAD|POST|DELETE) \S+ HTTP/1\.1\r\n")


class Proxy:
    def __init__(self, target_port):
        self.target_port = target_port
        self.delay_s = 0.0     # before each piece that goes to the store
        self.refuse = False    # close every connection at once
        self.connections = 0
        self.bytes_up = 0
        self.requests = []     # request lines, as they passed
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._stop = threading.Event()
        self._threads = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        self._listener.settimeout(0.2)
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except socket.timeout:
                continue
            except OSError:
                return
            self.connections += 1
            if self.refuse:
                client.close()
                continue
            thread = threading.Thread(target=self._relay, args=(client,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _relay(self, client):
        try:
            store = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
        except OSError:
            client.close()
            return
        with client, store, selectors.DefaultSelector() as selector:
            client.settimeout(None)
            store.settimeout(None)
            selector.register(client, selectors.EVENT_READ, (client, store))
            selector.register(store, selectors.EVENT_READ, (store, client))
            while not self._stop.is_set() and not self.refuse:
                for key, _ in selector.select(0.2):
                    source, sink = key.data
                    try:
                        data = source.recv(65536)
                        if source is client:
                            self.bytes_up += len(data)
                            match = _REQUEST.match(data)
                            if match:
                                self.requests.append(match[0].decode("latin-1").strip())
                            self._hold()
                        if not data:
                            return
                        sink.sendall(data)
                    except OSError:
                        return

    def _hold(self):
        until = time.monotonic() + self.delay_s
        while time.monotonic() < until and not self._stop.is_set():
            time.sleep(min(0.02, self.delay_s))

    def stop(self):
        self._stop.set()
        self._listener.close()
        self._thread.join(5)
        for thread in self._threads:
            thread.join(5)
