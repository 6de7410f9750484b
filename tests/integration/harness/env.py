# SPDX-License-Identifier: Apache-2.0
"""Where the programs under test are, and what to do where one is missing."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def in_ci():
    return bool(os.environ.get("CI"))


def cannot_run(reason):
    """Skips with the reason; under CI a test that cannot run is a failed test."""
    if in_ci():
        pytest.fail(f"cannot run here, and CI must run everything: {reason}", pytrace=False)
    pytest.skip(reason)


def program(name):
    """`server` or `restore` of the build under test."""
    path = Path(os.environ.get("HARVEY_BIN") or ROOT / "bin").resolve() / name
    if not path.is_file():
        pytest.fail(f"{path} is not built: `make build`, or HARVEY_BIN=DIRECTORY", pytrace=False)
    return str(path)


def hooks_program(name):
    """The same in the flavour with test hooks (-DHARVEY_TEST_HOOKS)."""
    folders = [os.environ.get("HARVEY_HOOKS_BIN")]
    folders += [ROOT / "build" / f"{cc}-hooks" / "bin" for cc in ("gcc", "clang")]
    for folder in folders:
        if folder and (Path(folder) / name).is_file():
            return str((Path(folder) / name).resolve())
    return cannot_run(f"no {name} with test hooks: `make FLAVOUR=hooks build`, or HARVEY_HOOKS_BIN")


def minio_binary():
    """The minio binary, or None."""
    for path in (os.environ.get("MINIO_BIN"), ROOT / "bin" / "minio", shutil.which("minio")):
        if path and os.access(path, os.X_OK) and Path(path).is_file():
            return str(Path(path).resolve())
    return None


def tool(name):
    path = shutil.which(name)
    if not path:
        cannot_run(f"`{name}` is not installed")
    return path


def is_slow_build():
    """Sanitizer builds: the same tests with less load and longer limits."""
    return any(word in os.environ.get("HARVEY_BIN", "") for word in ("asan", "tsan", "valgrind"))
