# SPDX-License-Identifier: Apache-2.0
"""What the tests themselves stand on."""

import sys

from harness.process import Process, clean_environment
from harness.wait import until

# One thread waits for ever, the others end as soon as they have begun.
THREADS_COME_AND_GO = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
while True:
    threads = [threading.Thread(target=int) for _ in range(8)]
    for thread in threads:
        thread.start()
    print(flush=True)
    for thread in threads:
        thread.join()
"""


def test_harness__a_thread_ends_while_it_is_read(scene):
    """Its threads are read from /proc one after the other: one that has ended meanwhile is no failure."""
    child = Process("threads", [sys.executable, "-c", THREADS_COME_AND_GO], clean_environment(), scene.dir,
                    scene.dir / "threads.log").spawn()
    try:
        until(child.log, "threads to come and go")
        for _ in range(1000):
            assert child.thread_states() and child.thread_nices() and child.wakeups() >= 0
    finally:
        child.kill()
