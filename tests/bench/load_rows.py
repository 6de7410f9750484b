# SPDX-License-Identifier: Apache-2.0
"""What an insert costs beside an answer without a database, what group commit is worth, and what
replication takes from the server."""

import contextlib
import json

from harness import env
from harness.door import Door
from measure import hey, median, run, wrk
from session import Loaded


def _rates(loaded):
    return [one.rate for one in loaded]


def _cpu(loaded):
    return [one.cpu_us for one in loaded]


# ---- inserts beside the server's own answer without a database (/livez) ----
def insert_rows(session):
    with session.server() as server, \
            session.server(hooks=True, TEST_NO_DATABASE=1) as hollow:
        values, strangers = session.in_turn({
            f"{tool.__name__} {name}": lambda tool=tool, target=target, path=path: Loaded(
                target, lambda: tool(target.url + path, 50, session.round_s))
            for tool in (hey, wrk)
            for name, target, path in (("insert", server, "/"), ("hollow", hollow, "/"),
                                       ("fixed", server, "/livez"))})
    insert, hollow, fixed = (values[f"hey {name}"] for name in ("insert", "hollow", "fixed"))
    session.ratio("inserts NORMAL / answers without database, hey c50", _rates(insert),
                  _rates(fixed), 0.90, at_least=True, strangers=strangers)
    session.ratio("  the same / the insert's way without a transaction", _rates(insert),
                  _rates(hollow), strangers=strangers)
    session.plots["rates"] = {"answer without database": max(_rates(fixed)),
                              "insert, replication off": max(_rates(insert))}
    insert, hollow, fixed = (values[f"wrk {name}"] for name in ("insert", "hollow", "fixed"))
    session.ratio("server CPU per insert / per answer without database, wrk c50", _cpu(insert),
                  _cpu(fixed), 1.6, strangers=strangers,
                  details={"insert_rate": _rates(insert), "fixed_rate": _rates(fixed)})
    session.ratio("  the same / the insert's way without a transaction", _cpu(insert),
                  _cpu(hollow), strangers=strangers)


# ---- group commit ----
def group_commit_row(session):
    with session.server(hooks=True, SYNCHRONOUS="FULL") as many, \
            session.server(hooks=True, SYNCHRONOUS="FULL", TEST_ONE_ROW=1) as single:
        values, strangers = session.in_turn({
            name: lambda server=server: Loaded(
                server, lambda: wrk(server.url, 200, session.round_s))
            for name, server in (("many", many), ("single", single))})
    session.ratio("inserts FULL / the same, a transaction per row, wrk c200",
                  _rates(values["many"]), _rates(values["single"]), 6, at_least=True,
                  strangers=strangers)


# ---- the door: its listening socket, and nothing in between ----
def door_row(session):
    door = Door(session.scene.dir).start()
    try:
        with session.server(door=door) as behind, session.server() as own:
            values, strangers = session.in_turn({
                name: lambda server=server: Loaded(
                    server, lambda: wrk(server.url, 50, session.round_s))
                for name, server in (("behind", behind), ("own", own))})
    finally:
        door.kill()
    session.ratio("inserts behind the door / listening itself, wrk c50", _rates(values["behind"]),
                  _rates(values["own"]), 0.97, at_least=True, strangers=strangers)


# ---- replication: with and without, both new for each repetition ----
def _pair(session, with_archive, without):
    """For Session.in_turn: a fresh server of each kind, both up all the time."""
    @contextlib.contextmanager
    def fresh():
        with session.server("dir") as on, session.server() as off:
            yield {"with": lambda: with_archive(on), "without": lambda: without(off)}
    return fresh


def saturated_rows(session):
    for tool in (wrk, hey):
        def loaded(server, tool=tool):
            return Loaded(server, lambda: tool(server.url, 50, session.long_round_s))
        values, strangers = session.in_turn(_pair(session, loaded, loaded), session.many_rounds)
        on, off = values["with"], values["without"]
        after = median([one.after_s / one.cpu_s for one in on])
        session.ratio(f"throughput with replication / without, saturated, {tool.__name__} c50",
                      _rates(on), _rates(off), 0.92, at_least=True, must=True, strangers=strangers,
                      note=f"{100 * after:.0f} % of its CPU came after the load",
                      details={"after_s": [one.after_s for one in on]})
        session.ratio("  the same, server CPU per request", _cpu(on), _cpu(off),
                      strangers=strangers)
        if tool is hey:
            rates = session.plots.setdefault("rates", {})
            off_name = "insert, replication off"
            rates[off_name] = max(rates.get(off_name, 0), *_rates(off))
            rates["insert, replicated to a directory"] = max(_rates(on))
        session.capacity = median(_rates(off))


def half_rate(session):
    """Half of what hey gets from a server without an archive, rows per second."""
    if not hasattr(session, "capacity"):
        with session.server() as server:
            session.capacity = median([
                Loaded(server, lambda: hey(server.url, 50, session.round_s)).rate
                for _ in range(3)])
    return int(session.capacity / 2)


class Steady(Loaded):
    """A fixed rate by openloop: server CPU per request, latencies from the planned moment (added up
    like the rest: compare sums of as many)."""

    def __init__(self, server, rate, seconds):
        report = {}

        def load():
            report.update(json.loads(run([
                env.program("openloop"), "--url", server.url + "/", "--rate", rate, "--seconds",
                seconds, "--json"]).output))
            return report["ok"], seconds
        super().__init__(server, load)
        self.p50_us = report["all_us"]["p50"]
        self.p99_us = report["all_us"]["p99"]
        self.late_us = report["client_late_us"]["p99"]


def half_load_rows(session):
    rate = half_rate(session)

    def steady(server):
        return Steady(server, rate, 2)
    values, strangers = session.in_turn(_pair(session, steady, steady))
    on, off = values["with"], values["without"]
    session.ratio("half load: CPU per request with replication / without", _cpu(on), _cpu(off),
                  1.15, strangers=strangers, note=f"{rate} rows/s", details={"rate": rate})
    rounds = session.rounds
    session.ratio("half load: p99 with replication / without",
                  [one.p99_us / rounds for one in on], [one.p99_us / rounds for one in off], 1.3,
                  strangers=strangers,
                  details={"client_late_p99_us": [one.late_us / rounds for one in on + off],
                           "with_p50_us": [one.p50_us / rounds for one in on],
                           "without_p50_us": [one.p50_us / rounds for one in off]})
