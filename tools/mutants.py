"""Mutation testing: changes code a little, again and again, and says which changes no test notices.

    python tools/mutants.py                     12 mutants of every module of tools/mutants.toml
    python tools/mutants.py --count 40 breaker  40 of each module whose path has "breaker" in it

A mutant is another number, comparison or operator, a condition turned round, a decorator left out.
Which places of a module are changed, and how, follows from the seed. The checkout is not touched: a
copy is changed, and each mutant faces the module's own tests there. One that survives either cannot
be told from the original - then it is listed in tools/mutants.toml with the reason - or lacks a
test. mutmut 3 changes functions only, and so none of the constants that this is about.
"""

import argparse
import ast
import difflib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, Final

import google.protobuf.message  # noqa: F401 - for all forks
import grpc  # noqa: F401
import pytest
import pytest_asyncio  # noqa: F401
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from hypothesis import settings, stateful  # noqa: F401

ROOT: Final = Path(__file__).parents[1]
LISTED: Final = ROOT / "tools" / "mutants.toml"
ROOTS: Final = ("", "interceptors", "contracts", "runtime", "generated")
LEFT_OUT: Final = ("_Is_Eq", "_IsNot_NotEq", "_BitOr_", "ExceptionReplacer")
"""Operators that change nothing - what is compared by identity here is an enum, or None, and `|`
stands in types - and one that cannot read `except grpc.RpcError`."""
Place = tuple[int, int]

# The same examples each time, and fewer: what only the hundredth finds is found by luck.
settings.register_profile("mutants", deadline=None, derandomize=True, max_examples=30)
ARGUMENTS: Final = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants")


def without_behaviour(code: str) -> set[Place]:
    """Places in annotations and dataclass decorators, which only say what types are."""
    places: set[Place] = set()
    for node in ast.walk(ast.parse(code)):
        decorators = getattr(node, "decorator_list", [])
        for of in (
            getattr(node, "annotation", None),
            getattr(node, "returns", None),
            *(each for each in decorators if "dataclass" in ast.dump(each)),
        ):
            if of is not None:
                ends = (of.lineno, of.col_offset - 1), (of.end_lineno, of.end_col_offset)
                lines = range(of.lineno, of.end_lineno + 1)
                places.update(
                    p for p in itertools.product(lines, range(200)) if ends[0] <= p < ends[1]
                )
    return places


def mutants(code: str, seed: str) -> Iterator[tuple[int, str]]:
    """(line, changed code), place after place in the order of the seed."""
    left_out = without_behaviour(code)
    places: dict[Place, list[tuple[Any, int]]] = {}
    nodes = list(ast_nodes(get_ast(code)))
    for name in sorted(operator_names()):
        if get_operator(name).arguments() or any(part in name for part in LEFT_OUT):
            continue  # The former take names of variables to put in.
        operator = get_operator(name)()
        found = (start for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, start in enumerate(found):
            if start not in left_out:
                places.setdefault(start, []).append((operator, occurrence))
    chance = random.Random(seed)
    for place in chance.sample(sorted(places), len(places)):
        operator, occurrence = chance.choice(places[place])
        changed = mutate_code(code, operator, occurrence)
        try:
            same = ast.dump(ast.parse(changed)) == ast.dump(ast.parse(code))
        except SyntaxError:
            continue
        if not same:
            yield place[0], changed


def difference(code: str, changed: str) -> str:
    """The lines that are not the same, as one."""
    lines = list(difflib.ndiff(code.splitlines(), changed.splitlines()))
    gone, new = (
        " ".join(" ".join(line[2:].split()) for line in lines if line.startswith(sign))
        for sign in ("- ", "+ ")
    )
    return f"{gone} -> {new}"


def copied(folder: Path) -> Path:
    """A copy of what git knows of, and of what it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.strip("\0").split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def replace(path: Path, code: str) -> None:
    """Change a module, and forget it as Python has compiled it: it may be as long and as new."""
    path.write_text(code)
    Path(cache_from_source(str(path))).unlink(missing_ok=True)


def attempt(tests: list[str], timeout: float) -> str:
    """What the tests make of the copy: "killed", "late" or "SURVIVED".

    In a fork, which has loaded all but what is tested: that is most of the time of a short test.
    """
    child = os.fork()
    if not child:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        try:
            os._exit(pytest.main([*ARGUMENTS, *tests]))
        finally:
            os._exit(1)
    until, ended = time.monotonic() + timeout, 0
    while not ended and time.monotonic() < until:
        time.sleep(0.02)
        ended, status = os.waitpid(child, os.WNOHANG)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and what it has started
    if not ended:
        os.waitpid(child, 0)
        return "late"
    return "killed" if status else "SURVIVED"


def main() -> int:
    """Print what happens to each mutant, then the sums; 1 if one survives that is not listed."""
    options = argparse.ArgumentParser(description="Mutation testing.")
    options.add_argument("modules", nargs="*", help="parts of paths; none: all that are listed")
    options.add_argument("--count", type=int, default=12, help="mutants of each module")
    options.add_argument("--seed", default="1")
    asked = options.parse_args()
    listed = tomllib.loads(LISTED.read_text())
    equivalent = {(each["module"], each["mutant"]) for each in listed["equivalent"]}
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(copied(Path(temporary)))
        sys.path[:0] = [str(Path(temporary, each)) for each in ROOTS]
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[: len(ROOTS)])
        for module, tests in listed["tests"].items():
            if asked.modules and not any(each in module for each in asked.modules):
                continue
            began = time.monotonic()
            if attempt(tests, 600.0) != "SURVIVED":
                print(f"FAILED    {module}  its tests fail as it is", flush=True)
                counts[module] = Counter(SURVIVED=1)
                continue
            timeout = 4 * (time.monotonic() - began) + 20
            path, code = Path(module), Path(module).read_text()
            count = counts.setdefault(module, Counter())
            for line, changed in mutants(code, f"{asked.seed} {module}"):
                if count.total() == asked.count:
                    break
                mutant = difference(code, changed)
                if (module, mutant) in equivalent:
                    count["equivalent"] += 1
                    continue
                replace(path, changed)
                what = attempt(tests, timeout)
                count[what] += 1
                print(f"{what:8}  {module}:{line}  {mutant}", flush=True)
            replace(path, code)
        os.chdir(ROOT)
    print("\nmutants  killed  late  equivalent  survived")
    for module, count in [*counts.items(), ("together", sum(counts.values(), Counter[str]()))]:
        numbers = (count[each] for each in ("killed", "late", "equivalent", "SURVIVED"))
        print("{:7}  {:6}  {:4}  {:10}  {:8}".format(count.total(), *numbers), module)
    return 1 if any(count["SURVIVED"] for count in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
