# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition: polled, with a limit so generous that only a hang reaches it."""

import os
import time

LIMIT_S = float(os.environ.get("HARVEY_TEST_LIMIT_S", "60"))


class Waited(AssertionError):
    """A condition that did not come true."""


def until(condition, what, limit_s=None, pause_s=0.02):
    """Calls condition() until it gives something true, and returns that. An assertion inside it
    counts as "not yet" and is told when the limit passes; Waited goes through."""
    deadline = time.monotonic() + (limit_s or LIMIT_S)
    while True:
        last = None
        try:
            last = condition()
            if last:
                return last
        except Waited:
            raise
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise Waited(f"waited {limit_s or LIMIT_S:.0f} s for {what}; last: {last!r}")
        time.sleep(pause_s)


def holds_for(condition, seconds, what, pause_s=0.05):
    """Looks at condition() over and over for that long; it must be true every time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), what
        time.sleep(pause_s)
