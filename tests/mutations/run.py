#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Takes out one defence after the other and looks whether the test that stands for it fails.

usage: run.py [-j N] [-l] [-u | -b] [NAME...]      NAME: of a mutant, the beginning of one, or of a list (door)

A mutant is a paragraph in one of the lists beside this file (ROOM.txt):

    file: archive/segment.c               holds until the next one
    [segment-content-hash]                its name
    - memcmp(digest, header->content_sha256, sizeof digest) != 0
    + false
    test: test_segment_rules every_byte_of_the_content_is_covered

The piece behind `-` must be in the file exactly once (white space counts as white space, however much);
several lines are one piece, and none behind `+` means that it is cut out. The test is a program of
tests/unit and a part of a case's name, or a file of tests/integration and what pytest is told besides. A
mutant is *seen* when that case fails, dies or hangs; when it passes, the mutant has *survived*: a test is
missing, or the line is no defence. *Broken*: the piece is not there, it does not compile, or the test does
not pass without the mutant either.

Works on copies of the tree in build/mutations, one per worker, which keep their objects: a mutant costs one
file's compilation, a link and its test. Built without optimisation and with test hooks.
"""

import argparse
import fcntl
import filecmp
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path(__file__).resolve().parent
WORK = ROOT / "build" / "mutations"
BUILD = "build/mutant"
MAKE = ["make", "-s", f"B={BUILD}", "OPT=-O0 -DHARVEY_TEST_HOOKS", "WARN=-w"]
PROGRAMS = ("server", "restore", "door")
WAIT_S = "20"  # how long a black-box test of a mutant waits for what never comes
LIMIT_S, LIMIT_FACTOR = 20, 6  # a hang: longer than this and that many times what the test takes


class Broken(Exception):
    """The mutant cannot be tried, or its test says nothing."""


@dataclass
class Mutant:
    name: str
    room: str
    path: str
    old: str = ""
    new: str = ""
    test: str = ""
    where: str = ""

    def pattern(self):
        return re.compile(r"\s+".join(re.escape(word) for word in self.old.split()))

    def apply(self, text):
        found = self.pattern().findall(text)
        if len(found) != 1:
            raise Broken(f"its piece is {len(found)} times in {self.path}")
        return self.pattern().sub(lambda _: self.new.rstrip("\n"), text)


@dataclass
class Test:
    """What several mutants may share: a unit program, or a file of black-box tests."""
    words: list
    wanted: list  # the parts of cases' names, -k's expressions
    seconds: float = 0
    problem: str = ""
    cases: set = field(default_factory=set)

    @property
    def is_unit(self):
        return not self.words[0].endswith(".py")


# ---- the lists ----

def read_list(path):
    mutants, current = [], ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f"{path.name}:{number}"
        key, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        if key == "file:":
            current = rest.strip()
        elif line.startswith("["):
            mutants.append(Mutant(line.strip("[]"), path.stem, current, where=where))
        elif key == "-":
            mutants[-1].old += rest + "\n"
        elif key == "+":
            mutants[-1].new += rest + "\n"
        elif key == "test:":
            mutants[-1].test = rest.strip()
        else:
            sys.exit(f"{where}: neither `file:`, `[name]`, `-`, `+` nor `test:`")
    for mutant in mutants:
        if not (mutant.path and mutant.old and mutant.test):
            sys.exit(f"{mutant.where}: {mutant.name} lacks a file, a piece or a test")
    return mutants


def read_lists(names):
    mutants = [m for path in sorted(LISTS.glob("*.txt")) for m in read_list(path)]
    twice = {m.name for m in mutants if sum(n.name == m.name for n in mutants) > 1}
    if twice:
        sys.exit(f"two mutants are called {', '.join(sorted(twice))}")
    for name in names:
        if not any(m.room == name or m.name.startswith(name) for m in mutants):
            sys.exit(f"no mutant and no list is called {name}")
    return [m for m in mutants
            if not names or any(m.room == name or m.name.startswith(name) for name in names)]


def split_words(text):
    """Words; what follows -k or -m up to the next option is one expression."""
    words = []
    for word in text.split():
        if len(words) > 1 and words[-2] in ("-k", "-m") and not word.startswith("-"):
            words[-1] += " " + word
        else:
            words.append(word)
    return words


def look(mutant):
    """The piece is in its place, and the test that is named exists."""
    mutant.apply((ROOT / mutant.path).read_text())
    name, case = split_words(mutant.test)[0], case_of(mutant)
    if name.endswith(".py"):
        path = ROOT / "tests" / "integration" / name
        known = path.read_text() + (ROOT / "base" / "failpoint.c").read_text()
        for word in set(re.findall(r"\w+", case)) - {"and", "or", "not"}:
            if word not in known:
                raise Broken(f"{name} has nothing called {word}")
    elif case not in (ROOT / "tests" / "unit" / f"{name}.c").read_text():
        raise Broken(f"{name} has no case {case}")


def key_of(mutant):
    """Mutants with the same key share the run without a mutant: all but the case, or what -k says."""
    words = split_words(mutant.test)
    if "-k" in words:
        at = words.index("-k")
        return tuple(words[:at] + words[at + 2:])
    return tuple(words) if words[0].endswith(".py") else (words[0],)


def case_of(mutant):
    """The part of a case's name, or -k's expression."""
    words = split_words(mutant.test)
    if "-k" in words:
        return words[words.index("-k") + 1]
    return words[1] if len(words) > 1 and not words[0].endswith(".py") else ""


# ---- children ----

CHILDREN = set()  # each leads a session of its own, and ends with us


def start(argv, **options):
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    CHILDREN.add(child.pid)
    return child


def end_all(*_):
    for pid in list(CHILDREN):
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    os._exit(1)


# ---- a copy of the tree ----

class Tree:
    def __init__(self, number):
        self.dir = WORK / f"tree-{number}"
        self.temp = None
        self.dirty = WORK / f"tree-{number}.dirty"  # holds the name of the file that is a mutant now

    def sync(self, files):
        """The tree's files as they are now; what differs is new for make."""
        for name in files:
            ours, copy = ROOT / name, self.dir / name
            if not copy.is_file() or not filecmp.cmp(ours, copy, shallow=False):
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ours, copy)
                shutil.copymode(ours, copy)
        wanted = set(files)
        for path in self.dir.rglob("*"):
            name = path.relative_to(self.dir).as_posix()
            if path.is_file() and name not in wanted and not name.startswith("build/"):
                path.unlink()

    def recover(self):
        """A run before this one was ended inside a mutant: what it compiled last is not to be trusted."""
        if self.dirty.exists():
            for path in (self.dir / BUILD / "obj" / Path(self.dirty.read_text()).with_suffix(end)
                         for end in (".o", ".kept")):
                path.unlink(missing_ok=True)
            self.dirty.unlink()

    def make(self, targets, log, jobs=1):
        env = {name: value for name, value in os.environ.items() if "MAKE" not in name}
        child = start([*MAKE, f"-j{jobs}", *targets], cwd=self.dir, env=env, stdout=subprocess.PIPE,
                      stderr=subprocess.STDOUT, text=True)
        output, _ = child.communicate()
        CHILDREN.discard(child.pid)
        log.write(output)
        if child.returncode != 0:
            raise Broken("it does not compile: " + output.strip().splitlines()[0])

    def run(self, argv, limit_s, log, **env):
        """Exit status, or None after the limit. Whatever it started ends with it (setpriv)."""
        self.temp = tempfile.mkdtemp(prefix="harvey-mutant-")
        os.chmod(self.temp, 0o755)  # a test looks at it as another user
        env = {**os.environ, "TMPDIR": self.temp, "HARVEY_TEST_DIR": self.temp,
               "PYTHONDONTWRITEBYTECODE": "1", **env}
        child = start(argv, cwd=self.dir, env=env, stdout=log, stderr=log)
        try:
            return child.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
            CHILDREN.discard(child.pid)
            shutil.rmtree(self.temp, ignore_errors=True)

    def run_unit(self, test, limit_s, log_path):
        """The cases that passed and that did not; the one it died or hung in did not."""
        with open(log_path, "a+") as log:
            self.make([f"{BUILD}/tests/unit/{test.words[0]}"], log)
            start = log.tell()
            status = self.run([f"{BUILD}/tests/unit/{test.words[0]}"], limit_s, log)
        output = Path(log_path).read_text(errors="replace")[start:]
        begun = re.findall(r"^\[ RUN      \] (\S+)", output, re.M)
        passed = set(re.findall(r"^\[       OK \] (\S+)", output, re.M))
        skipped = set(re.findall(r"^\[  SKIPPED \] (\S+)", output, re.M))
        failed = set(begun) - passed - skipped
        if status != 0 and not failed:
            failed = {"(outside any case)"}
        return passed, failed

    def run_pytest(self, test, expression, limit_s, log_path, **env):
        """True when it passed."""
        selected = ["-k", expression] if expression else []
        with open(log_path, "a") as log:
            self.make([f"{BUILD}/bin/{name}" for name in PROGRAMS], log)
            bins = str(self.dir / BUILD / "bin")
            status = self.run(["/usr/bin/python3", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
                               f"tests/integration/{test.words[0]}", *test.words[1:], *selected],
                              limit_s, log, HARVEY_BIN=bins, HARVEY_HOOKS_BIN=bins,
                              HARVEY_OBJ=str(self.dir / BUILD / "obj"),
                              HARVEY_UNIT_DIR=str(self.dir / BUILD / "tests/unit"), CI="true",
                              MINIO_BIN=os.environ.get("MINIO_BIN") or str(ROOT / "bin" / "minio"),
                              **env)
        if status not in (0, 1, None):
            raise Broken(f"pytest's exit {status}, see {log_path}")
        return status == 0


# ---- first without a mutant, then with each ----

def try_test(tree, test):
    log = WORK / "log" / ("test-" + re.sub(r"[^A-Za-z0-9]+", "-", " ".join(test.words)) + ".log")
    log.unlink(missing_ok=True)
    begun = time.monotonic()
    try:
        if test.is_unit:
            test.cases, failed = tree.run_unit(test, 600, log)
            if failed:
                test.problem = f"{sorted(failed)[0]} fails without it too, see {log}"
        elif not tree.run_pytest(test, " or ".join(f"({case})" for case in test.wanted if case), 900,
                                 log):
            test.problem = f"{test.words[0]} fails without it too, see {log}"
    except Broken as broken:
        test.problem = str(broken)
    test.seconds = time.monotonic() - begun


def try_mutant(tree, mutant, test):
    """True when it was seen."""
    if test.problem:
        raise Broken(test.problem)
    case = case_of(mutant)
    if test.is_unit and case and not any(case in name for name in test.cases):
        raise Broken(f"{test.words[0]} has no case {case}")
    log = WORK / "log" / f"{mutant.name}.log"
    log.unlink(missing_ok=True)
    source = tree.dir / mutant.path
    clean = source.read_bytes()
    stat = source.stat()
    compiled = tree.dir / BUILD / "obj" / Path(mutant.path).with_suffix(".o")
    changed = mutant.apply(source.read_text())
    tree.dirty.write_text(mutant.path)
    kept = compiled.with_suffix(".kept")
    source.write_text(changed)
    if compiled.exists():
        shutil.copy2(compiled, kept)
        later_ns = compiled.stat().st_mtime_ns + 10_000_000  # make tells no two files of one tick apart
        os.utime(source, ns=(later_ns, later_ns))
    limit_s = LIMIT_S + LIMIT_FACTOR * test.seconds
    try:
        if test.is_unit:
            _, failed = tree.run_unit(test, limit_s, log)
            if failed and case and not any(case in name for name in failed):
                raise Broken(f"not {case} but {', '.join(sorted(failed))} sees it")
            return bool(failed)
        return not tree.run_pytest(test, case, limit_s, log, HARVEY_TEST_LIMIT_S=WAIT_S)
    finally:
        source.write_bytes(clean)
        os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        if kept.exists():
            os.replace(kept, compiled)
            os.utime(compiled)  # newer than what was linked with the mutant
        else:
            compiled.unlink(missing_ok=True)
        tree.dirty.unlink()


def work_off(trees, tests, mutants, tell):
    """Each test once without a mutant, then its mutants: whichever worker is free takes what is ready."""
    waiting = sorted(tests.items(), key=lambda item: not item[1].is_unit)  # what is quick comes first
    ready = []
    busy = 0
    changed = threading.Condition()

    def take():
        """The next thing to do, or None when there will be no more."""
        nonlocal busy
        with changed:
            while not ready and not waiting and busy:
                changed.wait()
            busy += bool(ready or waiting)
            return ready.pop(0) if ready else waiting.pop(0) if waiting else None

    def worker(tree):
        nonlocal busy
        while (job := take()) is not None:
            more = []
            if isinstance(job, Mutant):
                tell(tree, job)
            else:
                key, test = job
                try_test(tree, test)
                more = [mutant for mutant in mutants if key_of(mutant) == key]
            with changed:
                busy -= 1
                ready.extend(more)
                changed.notify_all()
    threads = [threading.Thread(target=worker, args=(tree,)) for tree in trees]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def make_trees(count, tests):
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.splitlines()
    files = [name for name in listed if (ROOT / name).is_file()]
    units = {f"{BUILD}/tests/unit/{test.words[0]}" for test in tests
             if test.is_unit and f"tests/unit/{test.words[0]}.c" in files}
    targets = [f"{BUILD}/bin/{name}" for name in (*PROGRAMS, "openloop")] + sorted(units)
    trees = [Tree(number) for number in range(1, count + 1)]
    with open(WORK / "log" / "build.log", "w") as log:
        for tree in trees:
            if not tree.dir.exists() and tree is not trees[0]:
                subprocess.run(["cp", "-a", trees[0].dir, tree.dir], check=True)
            tree.sync(files)
            tree.recover()
            tree.make(targets, log, count)
    return trees


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1], description=__doc__.split("\n\n")[0])
    parser.add_argument("-j", type=int, default=1, metavar="N", help="workers")
    parser.add_argument("-l", action="store_true", help="only look that each piece, and its test, is where it should be")
    parser.add_argument("-u", action="store_true", help="only those that a unit test must see")
    parser.add_argument("-b", action="store_true", help="only those that a black-box test must see")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    mutants = [m for m in read_lists(options.names)
               if not (options.u or options.b) or options.b == m.test.split()[0].endswith(".py")]
    counts = {"seen": 0, "SURVIVED": 0, "BROKEN": 0}
    say = threading.Lock()

    def tell(verdict, mutant, text):
        with say:
            counts[verdict] += 1
            print(f"{verdict:9} {mutant.name:40} {text}", flush=True)

    def summary():
        print(f"{counts['seen']} seen, {counts['SURVIVED']} survived, {counts['BROKEN']} broken")
        return 1 if counts["SURVIVED"] or counts["BROKEN"] else 0

    if options.l:
        for mutant in mutants:
            try:
                look(mutant)
            except (Broken, OSError) as error:
                tell("BROKEN", mutant, error)
        print(f"{len(mutants) - counts['BROKEN']} in place, {counts['BROKEN']} broken")
        return 1 if counts["BROKEN"] else 0

    (WORK / "log").mkdir(parents=True, exist_ok=True)
    lock = open(WORK / "lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_all)
    tests = {key_of(m): Test(list(key_of(m)), []) for m in mutants}
    for mutant in mutants:
        test = tests[key_of(mutant)]
        test.wanted += [] if case_of(mutant) in test.wanted else [case_of(mutant)]
    print(f"{len(mutants)} mutants, {len(tests)} tests", flush=True)
    trees = make_trees(options.j, tests.values())

    def work(tree, mutant):
        begun = time.monotonic()
        try:
            seen = try_mutant(tree, mutant, tests[key_of(mutant)])
            tell("seen" if seen else "SURVIVED", mutant,
                 f"{mutant.test}  ({time.monotonic() - begun:.1f} s)")
        except Broken as broken:
            tell("BROKEN", mutant, broken)
    work_off(trees, tests, mutants, work)
    return summary()


if __name__ == "__main__":
    sys.exit(main())
