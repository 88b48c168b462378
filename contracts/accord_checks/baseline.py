"""`accord contracts baseline`: today's findings, written down to be worked off; new ones fail.

The file stands beside buf.yaml, where `buf lint` and with it the plugin are run: a finding that is
in it is left out. It only shrinks: run again, the command takes out what is no longer found, and
puts nothing in; `--against` sees to it that nobody else does.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from accord_checks import Refused, image
from accord_checks.contracts import Contracts
from accord_checks.lint_rules.all_rules import LINT_RULES
from accord_checks.lint_rules.rule import Finding, Rule

FILE: Final = "accord-baseline.txt"
_HEAD: Final = """\
# Findings of `buf lint` that were here before the rules were: mend one, then run
# `accord contracts baseline`, which takes it out.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    about = f"write today's findings into {FILE}, to be worked off: new ones fail"
    parser = commands.add_parser("baseline", help=about, description=about)
    parser.add_argument(
        "--against",
        type=Path,
        metavar="BASE",
        help="write nothing, but refuse findings that the file of this folder has not",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file, or take out of it what is mended; or compare it. Raises Refused."""
    if arguments.against is not None:
        grown = sorted(known() - known(arguments.against))
        if grown:
            raise Refused(f"{FILE} only shrinks, and {len(grown)} are new: {'; '.join(grown)}")
        return 0
    found = image.read()
    contracts = Contracts(found.file, (file.name for file in found.file if image.imported(file)))
    lines = set(_found(contracts))
    new: set[str] = set()
    if Path(FILE).exists():
        before = known()
        new, lines = lines - before, lines & before
        print(f"findings mended: {len(before - lines)} of {len(before)}")
    else:
        print(f"findings in {FILE}, to be committed: {len(lines)}")
    if new:
        print(f"new findings, not written down (see `buf lint`): {len(new)}")
    Path(FILE).write_text("".join((_HEAD, *(f"{line}\n" for line in sorted(lines)))))
    return 0


def known(folder: Path = Path()) -> frozenset[str]:
    """What is in the file of a folder, which is the current one; nothing if there is none."""
    try:
        lines = (folder / FILE).read_text().splitlines()
    except FileNotFoundError:
        return frozenset()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def line(rule: Rule, finding: Finding) -> str:
    """A finding as it is written down: without its line, which moves."""
    return f"{rule.id} {finding.place.file}: {' '.join(finding.what.split())}"


def _found(contracts: Contracts) -> Iterator[str]:
    return (line(rule, finding) for rule in LINT_RULES for finding in rule.check(contracts))
