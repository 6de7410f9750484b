# SPDX-License-Identifier: Apache-2.0
"""HTTP byte by byte: a client that sends what it is told and reads answers one by one."""

import socket
import struct

PATIENCE_S = 60  # for what takes milliseconds


class Raw:
    """A client that sends bytes as they are and reads answers one by one."""

    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port.number), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.header_lines = []  # of the last answer, as they came

    def send(self, *pieces):
        for piece in pieces:
            self.socket.sendall(piece.encode() if isinstance(piece, str) else piece)
        return self

    def _fill(self):
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def answer(self, head=False):
        """(status, headers, body) of the next answer, or None at the end of the connection."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._fill():
                assert not self.buffer, f"half an answer: {self.buffer[:200]!r}"
                return None
        top, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = top.decode("latin-1").split("\r\n")
        self.header_lines = lines[1:]
        status = int(lines[0].split(" ")[1])
        headers = {name.lower(): value.strip()
                   for name, value in (line.split(":", 1) for line in lines[1:])}
        if status == 100:
            return status, headers, ""
        length = 0 if head else int(headers["content-length"])
        while len(self.buffer) < length:
            assert self._fill(), f"the body ends after {len(self.buffer)} of {length} bytes"
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return status, headers, body.decode()

    def is_closed(self):
        """Waits for the server's close; True unless bytes come instead."""
        try:
            return not self.buffer and self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def close(self):
        self.socket.close()

    def reset(self):
        """Leaves with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def get(path="/", *headers, method="GET", version="HTTP/1.1"):
    return "\r\n".join([f"{method} {path} {version}", "Host: harvey", *headers, "", ""])


def post(body, *headers, path="/"):
    return get(path, f"Content-Length: {len(body.encode())}", *headers, method="POST") + body


def once(server, request, head=False):
    with Raw(server) as raw:
        return raw.send(request).answer(head)


def chunked(*pieces):
    return "".join(f"{len(piece):x}\r\n{piece}\r\n" for piece in pieces) + "0\r\n\r\n"


def rows_of(server):
    return server.status()["rows"]
