# SPDX-License-Identifier: Apache-2.0
"""A project of its own for each test, per compose flavour; see project.py."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from project import Project, compose_flavours  # noqa: E402


@pytest.fixture
def project(tmp_path, request):
    """Of the stack that the test names: a compose command, or native."""
    flavour = request.param
    if flavour == "native":
        made = Project(tmp_path, "native")
    else:
        made = Project(tmp_path, "compose", flavour)
    yield made
    made.remove()


def pytest_generate_tests(metafunc):
    if "project" in metafunc.fixturenames:
        flavours = compose_flavours()
        assert flavours, "no Docker engine with compose answers here"
        if metafunc.definition.get_closest_marker("native_too"):
            flavours = flavours + ["native"]
        metafunc.parametrize("project", flavours, indirect=True)


def pytest_configure(config):
    config.addinivalue_line("markers", "native_too: the same on STACK=native")
