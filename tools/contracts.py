"""Check the contracts, and release them.

`check` runs every check, even when one fails, says what to do about each and exits 1 if any failed:
format, lint, breaking changes since the last release (and, where `ACCORD_BASE` or GitHub's
`GITHUB_BASE_REF` names the branch that a change is meant for, since it left that branch), the
generated code, and whether all that was released is as it was. `try` runs the tests that need
servers and other tools: clients and servers of the last release and of today against each other,
and the exports under the tools that they are for. All of it works offline.

`release VERSION` makes today's contracts the ones that later changes are compared with: it writes
them to `contracts/released/VERSION.binpb`, a file that `buf` and `protoc` read, and keeps clients,
servers and fixtures of that version beside it (`releases.py`).
"""

import argparse
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SCRIPTS: Final = Path(sys.executable).parent
RELEASED: Final = Path("contracts", "released")
CHANGELOG: Final = Path("CHANGELOG.md")
# What has to be committed before it can be released.
SOURCES: Final = (
    "buf.yaml",
    "protos",
    "generated",
    "interceptors",
    "contracts/accord_checks",
    "runtime",
    "services",
)

_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", re.ASCII)

Version = tuple[int, ...]


class Refused(Exception):
    """A release that may not be made; the message says why, a reason a line."""


@dataclass(frozen=True, slots=True)
class Step:
    """One check."""

    name: str
    command: Sequence[str | Path]
    remedy: str
    """What to do when it fails."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a step."""

    name: str
    ok: bool
    output: str
    """What its command said; may be empty."""
    remedy: str
    seconds: float = 0.0


def parse(version: str) -> Version | None:
    """`"1.20.3"` as `(1, 20, 3)`, or None if it is not a version of three numbers."""
    found = _VERSION.fullmatch(version)
    return tuple(int(number) for number in found.groups()) if found else None


def releases(root: Path) -> dict[Version, Path]:
    """The images of all released contracts, oldest first."""
    images = ((parse(path.stem), path) for path in (root / RELEASED).glob("*.binpb"))
    return dict(sorted((version, path) for version, path in images if version is not None))


def run(root: Path, step: Step) -> Result:
    """Run one check in the repository at `root`."""
    # Plugins of buf are found beside buf itself, whether or not the environment is activated.
    path = os.pathsep.join((str(SCRIPTS), os.environ.get("PATH", os.defpath)))
    begin = time.monotonic()
    done = subprocess.run(
        step.command,
        cwd=root,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - begin
    return Result(step.name, done.returncode == 0, done.stdout.strip(), step.remedy, seconds)


def breaking(since: str, against: Path) -> Step:
    """Compare with an image or a folder; `since` says to the reader what that is."""
    return Step(
        f"breaking changes since {since}",
        (SCRIPTS / "buf", "breaking", "--against", against),
        "keep the old element and add a new one beside it, or begin a new package (v2); a change "
        "of policy that is meant is accepted by the comment that its finding ends with",
    )


def _since_release(root: Path) -> Result:
    released = releases(root)
    if not released:
        name = "breaking changes since the last release"
        return Result(name, False, "nothing has been released", "run `make release-contracts`")
    image = released[max(released)]
    return run(root, breaking(image.stem, image))


def _base(environment: Mapping[str, str]) -> str | None:
    """The branch that this change is meant for, if somebody says so."""
    target = environment.get("GITHUB_BASE_REF")
    return environment.get("ACCORD_BASE") or (f"origin/{target}" if target else None)


def _since_base(root: Path, branch: str) -> Result:
    """Compare with the commit at which this change left its branch."""
    name = f"breaking changes since {branch}"
    try:
        commit = _git(root, "merge-base", branch, "HEAD").decode().strip()
        archive = _git(root, "archive", commit, "buf.yaml", "protos")
    except subprocess.CalledProcessError as error:
        remedy = f"fetch {branch} with its history (in GitHub Actions: `fetch-depth: 0`)"
        return Result(name, False, error.stderr.decode().strip(), remedy)
    with tempfile.TemporaryDirectory() as then:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(then, filter="data")
        step = breaking(f"{branch} ({commit[:12]})", Path(then))
        # By the rules of the branch: a change does not choose what judges it.
        return run(root, replace(step, command=(*step.command, "--config", f"{then}/buf.yaml")))


def check(
    root: Path, environment: Mapping[str, str] = os.environ, *, first: bool = False
) -> Iterator[Result]:
    """Run every check, side by side; the `first` release has none before it to compare with."""
    buf, python = SCRIPTS / "buf", sys.executable
    steps = [
        Step("format", (buf, "format", "--diff", "--exit-code"), "run `make format`"),
        Step(
            "lint",
            (buf, "lint"),
            "change the contract at the place named; docs/contract-rules.md explains each rule",
        ),
        Step(
            "generated code",
            (python, Path("tools", "generate.py"), "--check"),
            "run `make generate` and commit what it wrote",
        ),
        Step(
            "released files",
            (python, Path("tools", "releases.py"), "check"),
            f"restore it: `git checkout -- {RELEASED}`; what was released does not change",
        ),
    ]
    checks = [partial(run, root, step) for step in steps]
    if not first:
        checks.append(partial(_since_release, root))
    if branch := _base(environment):
        checks.append(partial(_since_base, root, branch))
    yield from _side_by_side(checks)


def trials(root: Path) -> Iterator[Result]:
    """Run the tests of the contracts that need servers and other people's tools, side by side."""
    tests = Path("tests", "contracts")
    pytest = (SCRIPTS / "pytest", "-q", "--no-header")
    steps = (
        Step(
            "the last release and today's code, in both directions",
            (*pytest, tests / "compat"),
            "keep what the last release relies on: docs/contract-compatibility.md",
        ),
        Step(
            "exports, under the tools that they are for",
            (*pytest, tests / "export"),
            "docs/exports.md says what each has to hold",
        ),
    )
    yield from _side_by_side([partial(run, root, step) for step in steps])


def _side_by_side(checks: Sequence[Callable[[], Result]]) -> Iterator[Result]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda check: check(), checks)


def report(results: Iterator[Result]) -> bool:
    """Print each result as it comes; whether all are well."""
    well = True
    for result in results:
        outcome = "ok" if result.ok else "FAILED"
        print(f"contracts: {result.name} ... {outcome} ({result.seconds:.1f} s)", flush=True)
        if not result.ok:
            well = False
            if result.output:
                print(textwrap.indent(result.output, "    "))
            print(f"    -> {result.remedy}", flush=True)
    return well


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(("git", *arguments), cwd=root, capture_output=True, check=True).stdout


def section(changelog: str, version: str) -> str | None:
    """The text below `## VERSION - date` or `## [VERSION]`; None without such a heading."""
    found = re.search(
        rf"^## \[?{re.escape(version)}\]?(?: [^\n]*)?$(?P<text>.*?)(?=^## |\Z)",
        changelog,
        re.MULTILINE | re.DOTALL,
    )
    return found["text"].strip() if found else None


def refusals(root: Path, version: str) -> Iterator[str]:
    """Why `version` may not be released, checks aside."""
    number = parse(version)
    if number is None:
        yield f"{version!r} is not a version such as 0.2.0"
        return
    released = releases(root)
    if released and number <= max(released):
        yield f"{version} is not more than {released[max(released)].stem}, the last release"
    log = root / CHANGELOG
    if not (section(log.read_text(), version) if log.exists() else None):
        yield f"{CHANGELOG} says nothing about it: write `## {version} - YYYY-MM-DD`, what is new"
    if changes := _git(root, "status", "--porcelain", "--", *SOURCES).decode().rstrip():
        yield f"there are changes that are not committed:\n{textwrap.indent(changes, '  ')}"


def release(root: Path, version: str) -> Path:
    """Write the image of today's contracts.

    Raises:
        Refused: the version or the state of the repository does not allow it.
    """
    reasons = list(refusals(root, version))
    if not reasons and not report(check(root, {}, first=not releases(root))):
        reasons = ["the contracts do not pass their checks"]
    if reasons:
        raise Refused("\n".join(reasons))
    image = root / RELEASED / f"{version}.binpb"
    image.parent.mkdir(parents=True, exist_ok=True)
    # With comments and positions: a comment that accepted a change before is told from a new one.
    command = (SCRIPTS / "buf", "build", "-o", image)
    subprocess.run(command, cwd=root, check=True)
    return image


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="run every check")
    commands.add_parser("try", help="run the tests that need servers and other tools")
    commands.add_parser("release", help="release today's contracts").add_argument("version")
    arguments = parser.parse_args()
    if arguments.command == "check":
        return 0 if report(check(ROOT)) else 1
    if arguments.command == "try":
        return 0 if report(trials(ROOT)) else 1
    try:
        image = release(ROOT, arguments.version)
    except Refused as refused:
        print(f"contracts: {arguments.version} was not released:", file=sys.stderr)
        print(textwrap.indent(str(refused), "    "), file=sys.stderr)
        return 1
    print(
        f"contracts: released as {image.relative_to(ROOT)}; its code and fixtures follow",
        flush=True,
    )
    kept = subprocess.run((sys.executable, ROOT / "tools" / "releases.py", "keep", image.stem))
    if kept.returncode:
        image.unlink()
        print(f"contracts: {image.stem} was not released", file=sys.stderr)
    return kept.returncode


if __name__ == "__main__":
    sys.exit(main())
