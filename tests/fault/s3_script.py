# SPDX-License-Identifier: Apache-2.0
"""A scripted S3 server on loopback: a small bucket in memory that plays one fault after another.

Rows D1-D13 are libs3 2.0's defects (archive/s3_guard.c names them), the rest is what stores and
networks do. A test says which requests meet which fault:

    with ScriptedS3() as s3:
        s3.on("PUT", faults.status(500))            # the next PUT, then all is well again
        s3.on("GET", faults.cut(10), times=3)
        s3.on("PUT", faults.lost_reply(), key="claim")

Without a rule a request gets the right answer: PUT (with If-None-Match: *), GET (with Range), HEAD,
DELETE, LIST version 1, bucket creation. Written on sockets, because an HTTP library would not let
us cut, stall or reset. Only the standard library.
"""

import base64
import datetime
import hashlib
import re
import socket
import ssl
import struct
import threading
import urllib.parse
from xml.sax.saxutils import escape

PAGE_KEYS = 1000
PACES_PER_S = 20  # how often a slow fault moves a piece


class Request:
    def __init__(self, method, target, headers, body):
        self.method, self.headers, self.body = method, headers, body
        path, _, query = target.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        parts = urllib.parse.unquote(path).lstrip("/").split("/", 1)
        self.bucket = parts[0]
        self.key = parts[1] if len(parts) > 1 else ""

    @property
    def kind(self):
        """PUT, GET, HEAD, DELETE of an object; LIST; BUCKET (making one)."""
        if self.key:
            return self.method
        return {"GET": "LIST", "HEAD": "LIST", "PUT": "BUCKET"}.get(self.method, self.method)


class Answer:
    def __init__(self, status, body=b"", headers=None):
        self.status, self.body, self.headers = status, body, headers or {}


def error(status, code="", message="", extra=""):
    """An answer with S3's error document; without a code it has no body at all."""
    if not code:
        return Answer(status)
    text = (f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{escape(code)}</Code>'
            f"<Message>{escape(message)}</Message>{extra}</Error>")
    return Answer(status, text.encode(), {"Content-Type": "application/xml"})


class Wire:
    """One connection, as a fault sees it."""

    def __init__(self, server, sock):
        self.server, self.sock = server, sock

    def send(self, data):
        self.sock.sendall(data)

    def head(self, answer, length=None, lower_case=False):
        """Status line and headers; length None = of the body, False = no such header."""
        headers = {"Date": datetime.datetime.now(datetime.timezone.utc).strftime(
            "%a, %d %b %Y %H:%M:%S GMT"), "Server": "script"}
        if length is not False and answer.status != 204:
            headers["Content-Length"] = str(len(answer.body) if length is None else length)
        headers.update(answer.headers)
        lines = [f"HTTP/1.1 {answer.status} Script"]
        lines += [f"{name.lower() if lower_case else name}: {value}"
                  for name, value in headers.items()]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def answer(self, answer, request, lower_case=False):
        self.head(answer, lower_case=lower_case)
        if request.method != "HEAD":
            self.send(answer.body)

    def reset(self):
        """RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_for_client(self, seconds):
        """Holds the connection until the client goes away, or that long."""
        self.sock.settimeout(seconds)
        try:
            while self.sock.recv(65536):
                pass
        except OSError:
            pass


class Fault:
    """What happens to one request. `reads_body` False: it strikes before the body is read."""

    reads_body = True
    says_continue = True

    def __init__(self, play, reads_body=True, says_continue=True, reads_per_s=None):
        self.play = play  # (wire, request, server) -> True to keep the connection
        self.reads_body = reads_body
        self.says_continue = says_continue
        self.reads_per_s = reads_per_s  # bytes of the body; None = as fast as they come


class faults:
    """Makers of faults."""

    @staticmethod
    def status(status, code="", message="", headers=None, body=None, extra="", early=False):
        def play(wire, request, _server):
            answer = error(status, code, message, extra)
            if body is not None:
                answer.body = body
            answer.headers.update(headers or {})
            wire.answer(answer, request)
            return not early
        return Fault(play, reads_body=not early)

    @staticmethod
    def reset(after_body=True):
        def play(wire, _request, _server):
            wire.reset()
        return Fault(play, reads_body=after_body)

    @staticmethod
    def close():
        return Fault(lambda wire, request, server: False)

    @staticmethod
    def lost_reply():
        """Carried out; the answer never leaves."""
        def play(_wire, request, server):
            server.carry_out(request)
            return False
        return Fault(play)

    @staticmethod
    def silence(seconds=30):
        return Fault(lambda wire, request, server: wire.wait_for_client(seconds))

    @staticmethod
    def short_answer():
        """200, and half of the body that it announces; nothing was done."""
        def play(wire, _request, _server):
            wire.head(Answer(200), length=100)
            wire.send(b"x" * 50)
            return False
        return Fault(play)

    @staticmethod
    def late(seconds, says_continue=True):
        """The right answer, that much later (D2 without the 100 Continue)."""
        def play(wire, request, server):
            server.stopping.wait(seconds)
            wire.answer(server.carry_out(request), request)
            return True
        return Fault(play, says_continue=says_continue)

    @staticmethod
    def cut(keep, chunked=False, length=True):
        """The right answer's first `keep` bytes, then a clean close (D3, D4).
        length False: no Content-Length either; "own": a Content-Length that fits the cut."""
        def play(wire, request, server):
            answer = server.carry_out(request)
            if chunked:
                answer.headers["Transfer-Encoding"] = "chunked"
                wire.head(answer, length=False)
                wire.send(b"%x\r\n%s" % (len(answer.body), answer.body[:keep]))
            elif length == "own":
                answer.body = answer.body[:keep]
                wire.answer(answer, request)
            else:
                if not length:
                    answer.headers["Connection"] = "close"
                wire.head(answer, length=None if length else False)
                wire.send(answer.body[:keep])
            return False
        return Fault(play)

    @staticmethod
    def chunked():
        """The right answer, whole, in chunks."""
        def play(wire, request, server):
            answer = server.carry_out(request)
            answer.headers["Transfer-Encoding"] = "chunked"
            wire.head(answer, length=False)
            for at in range(0, len(answer.body), 7):
                piece = answer.body[at:at + 7]
                wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            wire.send(b"0\r\n\r\n")
            return True
        return Fault(play)

    @staticmethod
    def stall(keep, seconds=30):
        """The first `keep` bytes of the right answer, then nothing."""
        def play(wire, request, server):
            answer = server.carry_out(request)
            wire.head(answer)
            wire.send(answer.body[:keep])
            wire.wait_for_client(seconds)
        return Fault(play)

    @staticmethod
    def slow(bytes_per_s):
        """The right answer, its body at that steady rate."""
        def play(wire, request, server):
            answer = server.carry_out(request)
            wire.head(answer)
            step = max(1, bytes_per_s // PACES_PER_S)
            for at in range(0, len(answer.body), step):
                server.stopping.wait(step / bytes_per_s)
                wire.send(answer.body[at:at + step])
            return True
        return Fault(play)

    @staticmethod
    def slow_to_read(bytes_per_s):
        """The right answer to a body that is read at that steady rate (with ScriptedS3.narrow)."""
        def play(wire, request, server):
            wire.answer(server.carry_out(request), request)
            return True
        return Fault(play, reads_per_s=bytes_per_s)

    @staticmethod
    def lower_case():
        def play(wire, request, server):
            wire.answer(server.carry_out(request), request, lower_case=True)
            return True
        return Fault(play)

    @staticmethod
    def changed(change):
        """The right answer, changed by `change(answer)`."""
        def play(wire, request, server):
            answer = server.carry_out(request)
            change(answer)
            wire.answer(answer, request)
            return True
        return Fault(play)

    @staticmethod
    def etag(value):
        """The right answer with that ETag; None = without one."""
        def change(answer):
            answer.headers.pop("ETag", None)
            if value is not None:
                answer.headers["ETag"] = value
        return faults.changed(change)

    @staticmethod
    def not_stored():
        """200 with the right ETag, and nothing was done."""
        def play(wire, request, _server):
            digest = hashlib.md5(request.body).hexdigest()
            wire.answer(Answer(200, b"", {"ETag": f'"{digest}"'}), request)
            return True
        return Fault(play)

    @staticmethod
    def stored_otherwise(body):
        """Other bytes are stored than were sent; the answer says so in its ETag."""
        def play(wire, request, server):
            request.body = body
            request.headers.pop("content-md5", None)
            wire.answer(server.carry_out(request), request)
            return True
        return Fault(play)

    @staticmethod
    def whole_for_range():
        """200 and the whole object where a part was asked for."""
        def play(wire, request, server):
            request.headers.pop("range", None)
            wire.answer(server.carry_out(request), request)
            return True
        return Fault(play)

    @staticmethod
    def pouring(status, beginning):
        """A body without end, as fast as it is taken."""
        def play(wire, _request, server):
            wire.head(Answer(status, headers={"Connection": "close"}), length=False)
            wire.send(beginning)
            while not server.stopping.is_set():
                wire.send(b" " * 65536)
        return Fault(play)

    @staticmethod
    def endless():
        """Headers without end."""
        def play(wire, _request, server):
            wire.send(b"HTTP/1.1 200 OK\r\n")
            for i in range(20000):
                if server.stopping.is_set():
                    return
                wire.send(b"x-amz-meta-%d: %s\r\n" % (i, b"v" * 900))
        return Fault(play)


class Rule:
    """`key` is searched for in the object's key; in a listing's prefix where it is LIST."""

    def __init__(self, kind, fault, times, key):
        self.kind, self.fault, self.left = kind, fault, times
        self.key = None if key is None else re.compile(key)

    def matches(self, request):
        name = request.query.get("prefix", "") if request.kind == "LIST" else request.key
        return (self.left > 0 and request.kind == self.kind and
                (self.key is None or self.key.search(name) is not None))


class ScriptedS3:
    def __init__(self, buckets=("bucket",), certificate=None):
        self.objects = {bucket: {} for bucket in buckets}
        self.honours_if_none_match = True
        self.is_public = False  # answers requests without a signature too
        self.opaque_etags = False  # as with SSE-KMS: not the MD5
        self.list_sizes = {}  # whole key -> the size that a listing tells
        self.list_cut_keys = set()  # a stale listing does not show these
        self.ignores_marker = False
        self.page_keys = PAGE_KEYS
        self.truncated_last = False  # IsTruncated behind the keys of a listing, not before them
        self.requests = []  # (kind, key, headers), in order
        self.agreed = []  # the protocol that each TLS connection agreed on
        self.stopping = threading.Event()
        self._rules = []
        self._played = 0
        self._lock = threading.Lock()
        self._tls = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        # bound and never listening: the port stays ours while nobody answers on it
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port = self._reserved.getsockname()[1]
        scheme = "http" if certificate is None else "https"
        self.endpoint = f"{scheme}://127.0.0.1:{self.port}"
        self._connections = set()
        self._listener = None
        self.answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def on(self, kind, fault, times=1, key=None):
        with self._lock:
            self._rules.append(Rule(kind, fault, times, key))

    def offer(self, protocols):
        self._tls.set_alpn_protocols(protocols)

    def count(self, kind):
        with self._lock:
            return sum(1 for request in self.requests if request[0] == kind)

    def heal(self):
        """No rule any more."""
        with self._lock:
            self._rules.clear()

    def played(self):
        """How often rules struck."""
        with self._lock:
            return self._played

    def answer(self):
        """Listens (again)."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._thread.start()

    def narrow(self):
        """From now on connections hold little: what the client has sent is soon what we have read."""
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)

    def refuse(self):
        """Nobody answers: connections are refused, and those that are open end."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
        except OSError:
            pass
        self._listener.close()
        with self._lock:
            connections = list(self._connections)
        for sock in connections:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._thread.join(5)

    def stop(self):
        self.stopping.set()
        self.refuse()
        self._reserved.close()

    # ---- connections ----

    def _accept(self, listener):
        while not self.stopping.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            sock.settimeout(60)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                self.agreed.append(sock.selected_alpn_protocol())
            with self._lock:
                self._connections.add(sock)
            reader = sock.makefile("rb")
            while not self.stopping.is_set() and self._one(sock, reader):
                pass
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._connections.discard(sock)
            sock.close()

    def _one(self, sock, reader):
        line = reader.readline(65536)
        if not line:
            return False
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers = {}
        while True:
            line = reader.readline(65536).decode("latin-1").rstrip("\r\n")
            if not line:
                break
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        request = Request(method, target, headers, b"")
        with self._lock:
            self.requests.append((request.kind, request.key, headers))
            rule = next((r for r in self._rules if r.matches(request)), None)
            if rule is not None:
                rule.left -= 1
                self._played += 1
        fault = rule.fault if rule is not None else None
        if fault is None or fault.reads_body:
            if headers.get("expect", "").lower() == "100-continue" and \
                    (fault is None or fault.says_continue):
                sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            length = int(headers.get("content-length", "0"))
            request.body = self._read_body(reader, length, fault.reads_per_s if fault else None)
            if len(request.body) < length:
                return False
        wire = Wire(self, sock)
        if fault is not None:
            return bool(fault.play(wire, request, self))
        wire.answer(self.carry_out(request), request)
        return True

    def _read_body(self, reader, length, per_s):
        if per_s is None:
            return reader.read(length)
        body, step = b"", max(1, per_s // PACES_PER_S)
        while len(body) < length and not self.stopping.wait(step / per_s):
            piece = reader.read(min(step, length - len(body)))
            if not piece:
                break
            body += piece
        return body

    # ---- the store itself ----

    def carry_out(self, request):
        """Does what the request says and makes the right answer."""
        with self._lock:
            if not self.is_public and \
                    not request.headers.get("authorization", "").startswith("AWS "):
                return error(403, "AccessDenied", "no Signature V2")
            if request.kind == "BUCKET":
                return self._make_bucket(request)
            if request.bucket not in self.objects:
                return error(404, "NoSuchBucket", "The specified bucket does not exist")
            objects = self.objects[request.bucket]
            act = {"LIST": self._list, "PUT": self._put, "GET": self._get, "HEAD": self._get,
                   "DELETE": self._delete}.get(request.kind)
            return act(objects, request) if act else error(405, "MethodNotAllowed", "no")

    def _etag(self, body):
        digest = hashlib.md5(body).hexdigest()
        return f'"{digest[::-1] if self.opaque_etags else digest}"'

    def _make_bucket(self, request):
        if request.bucket in self.objects:
            return error(409, "BucketAlreadyOwnedByYou", "you own it")
        self.objects[request.bucket] = {}
        return Answer(200)

    def _put(self, objects, request):
        digest = base64.b64encode(hashlib.md5(request.body).digest()).decode()
        if request.headers.get("content-md5", digest) != digest:
            return error(400, "BadDigest", "The Content-Md5 you specified did not match")
        if self.honours_if_none_match and request.headers.get("if-none-match") == "*" and \
                request.key in objects:
            return error(412, "PreconditionFailed", "At least one of the pre-conditions failed")
        objects[request.key] = request.body
        return Answer(200, b"", {"ETag": self._etag(request.body)})

    def _get(self, objects, request):
        if request.key not in objects:
            return error(404, "NoSuchKey", "The specified key does not exist.")
        body = objects[request.key]
        headers = {"ETag": self._etag(body)}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if match is None:
            return Answer(200, body, headers)
        first = int(match[1])
        last = min(int(match[2] or len(body) - 1), len(body) - 1)
        if first >= len(body):
            return error(416, "InvalidRange", "The requested range is not satisfiable")
        headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        return Answer(206, body[first:last + 1], headers)

    @staticmethod
    def _delete(objects, request):
        objects.pop(request.key, None)
        return Answer(204)

    def _list(self, objects, request):
        prefix = request.query.get("prefix", "")
        marker = "" if self.ignores_marker else request.query.get("marker", "")
        limit = min(int(request.query.get("max-keys", PAGE_KEYS)), self.page_keys)
        keys = sorted(key for key in objects if key.startswith(prefix) and key > marker and
                      key not in self.list_cut_keys)
        page = keys[:limit]
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-24T18:00:00.000Z"
            f"</LastModified><ETag>{escape(self._etag(objects[key]))}</ETag>"
            f"<Size>{self.list_sizes.get(key, len(objects[key]))}</Size></Contents>" for key in page)
        more = f"<IsTruncated>{'true' if len(keys) > limit else 'false'}</IsTruncated>"
        text = ('<?xml version="1.0" encoding="UTF-8"?>\n'
                '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<Name>{request.bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
                f"{items + more if self.truncated_last else more + items}</ListBucketResult>")
        return Answer(200, text.encode(), {"Content-Type": "application/xml"})
