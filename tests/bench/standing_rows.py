# SPDX-License-Identifier: Apache-2.0
"""What a server costs that has little or nothing to do: memory, requests, CPU, bytes per row."""

import shutil
import time

import measure
from measure import Strangers, hey, run
from restoring import make_database
from harness import env
from session import segment_bytes
from table import Row

_MEMORY_RATE = 2000  # rows per second while memory is watched
MEMORY_NOISE_MIB = 1.0


# ---- memory ----
def _peak_mib(session, kind, sized=None):
    """Of a server under a steady load, on an empty database or a copy of `sized`."""
    folder = session.scene.path("sized")
    folder.mkdir()
    if sized:
        shutil.copyfile(sized, folder / "state.db")
    with session.server(kind, database=folder / "state.db") as server:
        run([env.program("openloop"), "--url", server.url + "/", "--rate", _MEMORY_RATE,
             "--seconds", session.seconds, "--quiet"])
        peak = measure.memory_bytes(server.pid)[1] / 2**20
    shutil.rmtree(folder)
    return peak


def memory_rows(session, megabytes):
    archives = ["dir"] + (["minio"] if env.minio_binary() else [])
    repetitions = 1 if session.quick else 3
    values, _ = session.in_turn({
        str(kind): lambda kind=kind: _peak_mib(session, kind) for kind in [None] + archives},
        1, repetitions)
    for kind in archives:
        session.table.add(Row(
            f"peak RSS that replication adds, {kind}",
            [on - off for on, off in zip(values[kind], values["None"])], 12, unit="MiB",
            details={"with": values[kind], "without": values["None"]}))
    sizes = {"small": session.scene.path("small.db"), "large": session.scene.path("large.db")}
    make_database(sizes["small"], 10)
    make_database(sizes["large"], megabytes)
    values, _ = session.in_turn({
        f"{size} {kind}": lambda kind=kind, size=size: _peak_mib(session, kind, sizes[size])
        for size in sizes for kind in (None, "dir")}, 1, repetitions)
    sizes["large"].unlink()
    added = {size: [on - off for on, off in zip(values[f"{size} dir"], values[f"{size} None"])]
             for size in sizes}
    session.table.add(Row(
        f"its growth from a database of 10 MiB to one of {megabytes} MiB",
        [large - small for large, small in zip(added["large"], added["small"])],
        MEMORY_NOISE_MIB, must=True, unit="MiB", details=values,
        note=f"bound: none; {MEMORY_NOISE_MIB} is within what equal runs differ by"))


# ---- ten rows a second, then nothing ----
def quiet_rows(session):
    """Through a relay before MinIO, which counts what passes."""
    archive = session.scene.archive("minio")
    proxy = session.scene.proxy(archive.endpoint_port)
    archive.endpoint_port = proxy.port
    with session.server(archive=archive) as server:
        stored = segment_bytes(archive)
        passed, requests = proxy.bytes_up, len(proxy.requests)
        rows, _ = hey(server.url, 1, 10 if session.quick else 30, per_second=10)
        server.wait_archived()
        wire = (proxy.bytes_up - passed) / rows
        session.table.add(Row("bytes stored per row at 10 rows/s, interval 1000",
                              [(segment_bytes(archive) - stored) / rows], 150, unit="bytes",
                              details={"rows": rows, "requests": len(proxy.requests) - requests}))
        session.table.add(Row("  the same with the HTTP around them", [wire], unit="bytes"))
        _idle_rows(session, server, proxy)


def _idle_rows(session, server, proxy):
    seconds = 12 if session.quick else 60
    time.sleep(2)  # what follows the last upload by design (state written, files deleted)
    before = len(proxy.requests), server.status()["counters"]["store_requests"]
    with Strangers() as others:
        cpu_s = measure.cpu_seconds(server.pid)
        time.sleep(seconds)
        cpu_s = measure.cpu_seconds(server.pid) - cpu_s
    after = len(proxy.requests), server.status()["counters"]["store_requests"]
    session.table.add(Row(f"requests to the store while idle, {seconds} s",
                          [max(after[0] - before[0], after[1] - before[1])], 0, must=True))
    session.table.add(Row("CPU while idle, of one core", [100 * cpu_s / seconds], 0.3, must=True,
                          unit="%", strangers=[others.cores]))
