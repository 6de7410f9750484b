# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the black-box tests. See harness/__init__.py for what they are made of.

  HARVEY_BIN       folder of `server` and `restore` (default bin/)
  MINIO_BIN        a minio binary (default bin/minio, then PATH)
  HARVEY_SEED      a number: the same random choices again
  HARVEY_TEST_DIR  where the tests keep their files (default: the system's temporary folder)
  HARVEY_SLOW=1    runs what is marked `slow` too (so does `-m slow`)
A failed test prints its seed and keeps its directory.
"""

import os
import re
import secrets
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.minio import MinIO  # noqa: E402
from harness.scene import Scene  # noqa: E402
from harness.stage import Stage  # noqa: E402

RUN_SEED = int(os.environ.get("HARVEY_SEED") or secrets.randbelow(10**9))


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes long; run with HARVEY_SLOW=1 or -m slow")
    config.addinivalue_line("markers", "root: needs root (mounts a small filesystem)")


def pytest_report_header():
    return f"HARVEY_SEED={RUN_SEED}"


def pytest_collection_modifyitems(config, items):
    if os.environ.get("HARVEY_SLOW") == "1" or "slow" in (config.getoption("markexpr") or ""):
        return
    skip = pytest.mark.skip(reason="slow: HARVEY_SLOW=1 or -m slow runs it")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    scene = getattr(item, "scene", None)
    if scene is not None and report.failed:
        item.failed = True
        report.sections.append(("to look at", f"HARVEY_SEED={RUN_SEED} {item.nodeid}\n"
                                              f"kept: {scene.dir}"))


@pytest.fixture(scope="session")
def base_dir():
    folder = Path(tempfile.mkdtemp(prefix="harvey-test-",
                                   dir=os.environ.get("HARVEY_TEST_DIR") or None))
    yield folder
    try:
        folder.rmdir()  # stays where a failed test left something
    except OSError:
        print(f"\nkept: {folder}")


@pytest.fixture(scope="session")
def shared_minio(base_dir):
    """Gives the one MinIO that most tests share; it starts when first asked for."""
    made = []

    def get():
        if not made:
            made.append(MinIO(base_dir / "shared-minio").start_ready())
        return made[0]
    yield get
    for minio in made:
        minio.stop()
        shutil.rmtree(minio.folder, ignore_errors=True)


@pytest.fixture
def scene(request, base_dir, shared_minio):
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")[:60]
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base_dir))
    seed = RUN_SEED ^ zlib.crc32(request.node.nodeid.encode())
    print(f"seed {RUN_SEED}")
    scene = Scene(folder, seed, shared_minio)
    request.node.scene = scene
    yield scene
    scene.end()
    if not getattr(request.node, "failed", False):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["dir", "minio"])
def archive(request, scene):
    """An empty archive; the test runs once on a directory and once on MinIO."""
    return scene.archive(request.param)


@pytest.fixture
def stage(scene):
    """An archive that nobody has written yet, without a server."""
    return Stage(scene)


@pytest.fixture
def server(scene):
    """A server without an archive, stopped at the end; its rows are what it acknowledged."""
    server = scene.server(None).start_ready()
    yield server
    if server.is_alive():
        server.stop_clean()
