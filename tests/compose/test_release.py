# SPDX-License-Identifier: Apache-2.0
"""What tests/bench/scenarios.py measures at length, at two rounds each: every stack starts, and shows
what it is there to show."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import scenarios  # noqa: E402

# Each of these costs some 20 s, most of them the containers'.
CHOSEN = {"naive, release": ["POST"], "caddy-proxy, release": ["POST"],
          "caddy-tuned, rolling": ["GET"], "door, release": ["GET", "POST"],
          "door-replicas, rolling": ["GET", "POST"], "door-bridge, rolling": ["POST"]}


@pytest.mark.parametrize("name", CHOSEN)
def test_release(project, tmp_path_factory, name):
    _, stack, action, must, check, _ = next(s for s in scenarios.SCENARIOS if s[0] == name)
    args = SimpleNamespace(rounds=2, rate=200)
    project.stack = stack
    project.make("up", COMPOSE=stack)
    reports = [scenarios.measure(project, action, "busy", method, args, tmp_path_factory.mktemp("svg"))
               for method in CHOSEN[name]]
    for report in reports:
        print(scenarios.row_of(name, must, check([report]), report))
    if check is scenarios.door_holds:  # without its bound in time: this machine may be busy
        assert scenarios.none_failed(reports)
        assert all(scenarios.rows_minus_200s(report) == 0 for report in reports)
        assert all(report["reconnects"] == 0 for report in reports)
    elif check is scenarios.gets_are_well:  # a proxy guesses by time: where CPU is short it guesses wrong
        assert all(report["ok"] > 0 for report in reports)
    else:
        assert check(reports), must


def test_a_door_outlives_a_release(project):
    """`make up` after a change of the server alone recreates no door: its connections are in it."""
    project.make("up")
    door = container(project, "door")
    project.make("release", N="1")
    project.make("up")
    assert container(project, "door") == door


def container(project, service):
    return subprocess.run(
        ["docker", "ps", "-q", "--no-trunc", "--filter",
         f"label=com.docker.compose.project={project.name}", "--filter",
         f"label=com.docker.compose.service={service}"], capture_output=True, text=True,
        check=True).stdout.split()
