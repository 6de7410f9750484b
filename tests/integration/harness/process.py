# SPDX-License-Identifier: Apache-2.0
"""One child process: started, watched, ended by its id, its output in a file.

A child is also told to die with us (setpriv --pdeathsig), so that an interrupted test run leaves
nothing behind. Start children from the main thread: that signal follows the starting thread.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from .wait import LIMIT_S, Waited, until

_SETPRIV = shutil.which("setpriv")
_CLEAN = ("PATH", "LANG", "TMPDIR", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS")


def clean_environment(**more):
    """The few variables a child may inherit, and `more`; nothing of HARVEY_* or AWS_* leaks in."""
    env = {name: os.environ[name] for name in _CLEAN if name in os.environ}
    env.update({name: str(value) for name, value in more.items() if value is not None})
    return env


class Port:
    """A TCP port of 127.0.0.1 chosen by the kernel and kept for us: our socket stays bound to it
    without listening, so the kernel gives it to nobody else, and a child that binds it with
    SO_REUSEADDR (every server does) may listen there, again and again."""

    def __init__(self):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number = self._socket.getsockname()[1]

    def close(self):
        self._socket.close()


class Process:
    def __init__(self, name, argv, env, cwd, log):
        self.name = name
        self.argv = [str(arg) for arg in argv]
        self.env = env
        self.cwd = str(cwd)
        self.log_path = Path(log)
        self.child = None
        self._log_start = 0

    @property
    def pid(self):
        return self.child.pid

    def spawn(self):
        assert not self.is_alive(), f"{self.name} runs already"
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        argv = [_SETPRIV, "--pdeathsig", "KILL", *self.argv] if _SETPRIV else self.argv
        with open(self.log_path, "ab") as log:
            self.child = subprocess.Popen(argv, env=self.env, cwd=self.cwd, stdout=log, stderr=log,
                                          stdin=subprocess.DEVNULL)
        return self

    def is_alive(self):
        return self.child is not None and self.child.poll() is None

    def log(self, whole=False):
        """What it printed since its last start (or ever)."""
        if not self.log_path.exists():
            return ""
        data = self.log_path.read_bytes()
        return data[0 if whole else self._log_start:].decode("utf-8", "replace")

    def signal(self, number):
        self.child.send_signal(number)

    def wait(self, limit_s=None):
        """Its exit status (negative: the signal that ended it)."""
        try:
            return self.child.wait(limit_s or LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Waited(f"{self.name} (pid {self.pid}) did not end within "
                         f"{limit_s or LIMIT_S:.0f} s; its log ends:\n"
                         f"{self.log()[-2000:]}") from None

    def kill(self):
        """kill -9, by its id, and reaped."""
        if self.is_alive():
            self.child.kill()
        if self.child is not None:
            self.child.wait()

    def freeze(self):
        """SIGSTOP, and waits until every thread has stopped."""
        self.signal(signal.SIGSTOP)
        until(lambda: set(self.thread_states()) == {"T"}, f"{self.name} to stop")

    def _of_each_thread(self, file):
        """The text of /proc/<pid>/task/<thread>/<file>; a thread that ends meanwhile is left out."""
        texts = []
        for path in Path(f"/proc/{self.pid}/task").glob(f"*/{file}"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                texts.append(path.read_text())
        return texts

    def thread_states(self):
        return [text.rsplit(")", 1)[1].split()[0] for text in self._of_each_thread("stat")]

    def thread_nices(self):
        """{name: nice value} of its threads."""
        return {text.split("(", 1)[1].rsplit(")", 1)[0]: int(text.rsplit(")", 1)[1].split()[16])
                for text in self._of_each_thread("stat")}

    def thaw(self):
        self.signal(signal.SIGCONT)

    def wakeups(self, thread=None):
        """How often its threads (or those of that name) have slept so far, all together."""
        return sum(int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", text)[1])
                   for text in self._of_each_thread("status")
                   if thread is None or text.startswith(f"Name:\t{thread}\n"))

    def connections(self, port):
        """How many connections of clients of that port it holds. The kernel's list of sockets is no snapshot:
        one may be in it twice, or be missing, where others come and go meanwhile."""
        sockets = set()
        for fd in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since the folder was read
                sockets.add(os.readlink(fd))
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        of_port = {f"socket:[{fields[9]}]" for fields in (line.split() for line in lines)
                   if int(fields[1].split(":")[1], 16) == port and fields[3] == "01"}
        return len(of_port & sockets)

    def rss_bytes(self):
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def check_alive(self):
        if not self.is_alive():
            code = self.child.poll() if self.child else None
            raise Waited(f"{self.name} has ended with status {code}; its log ends:\n"
                         f"{self.log()[-3000:]}")


def monotonic():
    return time.monotonic()
