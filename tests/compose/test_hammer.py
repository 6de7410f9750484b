# SPDX-License-Identifier: Apache-2.0
"""`make hammer` shows what a release does: whatever the server does meanwhile, it ends well and says what it
knows. Method: the script with a stand-in for the server and one for hey, at whose call the server is switched."""

import http.server
import os
import subprocess
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class StandIn:
    """Answers /status with one text, after the load with another; None: it is gone by then."""

    def __init__(self, before, after):
        self.text = before
        self.gone = False
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/load":
                    stand_in.text, stand_in.gone = after, after is None
                elif not stand_in.gone:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(stand_in.text.encode())
                self.close_connection = True

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def hammer(self, folder):
        hey = folder / "hey"
        hey.write_text(f"#!/bin/sh\ncurl -s -m 5 http://127.0.0.1:{self.port}/load\nexit 1\n")
        hey.chmod(0o755)
        env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "STACK": "native", "PORT": str(self.port)}
        return subprocess.run(["sh", "compose/stack.sh", "hammer"], cwd=ROOT, env=env, text=True, timeout=120,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def status(rows):
    return f"Total rows: {rows}\nLag: 0 frames\n"


@pytest.mark.parametrize("before, after, says", [
    (status(10), status(35), "rows written: 25 (now 35)"),
    (status(10), None, "rows written: unknown (now unknown)"),
    (status("unknown"), status(35), "rows written: unknown (now 35)"),
    (status(10), status("unknown"), "rows written: unknown (now unknown)")],
    ids=["all is well", "the server is away", "not known before", "not known after"])
def test_hammer__tells_what_it_knows(tmp_path, before, after, says):
    server = StandIn(before, after)
    try:
        done = server.hammer(tmp_path)
    finally:
        server.stop()
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert says in done.stdout, (done.stdout, done.stderr)


def test_hammer__without_a_server(tmp_path):
    server = StandIn("", "")
    server.stop()
    done = server.hammer(tmp_path)
    assert done.returncode == 1 and "make up" in done.stderr, (done.returncode, done.stdout, done.stderr)
