"""`accord contracts diff REF`: what a change of the contracts means for callers and consumers."""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from accord_checks import image
from accord_checks.breaking_rules.change import Change, Risk
from accord_checks.breaking_rules.compare import compare
from accord_checks.contracts import Contracts

EXIT_CODES: Final = {Risk.SAFE: 0, Risk.RISKY: 10, Risk.BREAKING: 20}
"""By the worst change that nobody has accepted; 1 means that there was nothing to compare with."""

_HEADINGS: Final = {
    Risk.BREAKING: "Breaking: what worked may fail, or what was guarded no longer is",
    Risk.RISKY: "Risky: what worked works differently",
    Risk.SAFE: "Safe",
}
# Of buf's own rules, what is a change of its own here.
_SAID: Final = frozenset(
    {"RPC_NO_DELETE", "RPC_SAME_CLIENT_STREAMING", "RPC_SAME_SERVER_STREAMING"}
)
_HELP: Final = """\
Policies, rules of requests, events and error reasons, as they come out with defaults filled in, and
what `buf breaking` says of shapes by the buf.yaml of a folder. Exit code: 0 no change or safe ones,
10 risky, 20 breaking, 1 error. A change that is meant is accepted with a comment above the RPC,
service, event or field, which names it and says why:
`// buf:lint:ignore POLICY_TIMEOUT_SHORTENED timeout 10 s to 5 s: why`.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "diff",
        help="say what a change of the contracts means for callers and consumers",
        description=_HELP,
    )
    parser.add_argument("ref", metavar="REF", help="git revision, image or folder to compare with")
    parser.add_argument(
        "--input",
        default=".",
        metavar="NOW",
        help="what to compare: the same; default: this folder",
    )
    parser.add_argument("--json", action="store_true", help="for programs, instead of Markdown")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare and report; the exit code says how bad it is. Raises Refused."""
    then, now = image.read(arguments.ref), image.read(arguments.input)
    versions = _Versions(Contracts(then.file, implied=True), Contracts(now.file, implied=True))
    versions.shapes.extend(
        (versions.file(path), line, rule, " ".join(message.split()))
        for path, line, rule, message in image.shape_changes(arguments.input, then)
        if rule not in _SAID
    )
    changes = sorted(compare(versions.then, versions.now), key=versions.order)
    if arguments.json:
        found = [versions.plain(change) for change in changes]
        keys = ("file", "line", "rule", "what")
        shapes = [dict(zip(keys, shape, strict=True)) for shape in versions.shapes]
        print(json.dumps({"since": arguments.ref, "changes": found, "shapes": shapes}, indent=2))
    else:
        print("\n".join(versions.markdown(arguments.ref, changes)))
    return EXIT_CODES[Risk.BREAKING if versions.shapes else worst(changes)]


def worst(changes: Iterable[Change]) -> Risk:
    """The worst risk of the changes that nobody has accepted."""
    risks = {change.risk for change in changes if not change.accepted}
    return next((risk for risk in Risk if risk in risks), Risk.SAFE)


def _place(file: str, line: int | None) -> str:
    return f"`{file}:{line}`" if line else f"`{file}`"


def _count(risk: Risk, changes: Sequence[Change]) -> str:
    """How many, and how many of them do not count: "**2 breaking** (1 accepted)"."""
    accepted = sum(change.accepted for change in changes)
    return f"**{len(changes)} {risk.value}**" + (f" ({accepted} accepted)" if accepted else "")


@dataclass(frozen=True, slots=True)
class _Versions:
    then: Contracts
    now: Contracts
    shapes: list[tuple[str, int | None, str, str]] = field(default_factory=list)
    """What `buf breaking` says besides: file, line, rule and message."""

    def file(self, path: str) -> str:
        """A file as contracts import it, of its path from the folder of buf.yaml."""
        return next((name for name in self.now.files if f"/{path}".endswith(f"/{name}")), path)

    def where(self, change: Change) -> tuple[str, int | None]:
        """File and line: today's, or that of what is gone."""
        contracts, place = self.now, change.place
        if place is None or not place.path:
            contracts, place = self.then, change.before
        if place is None:
            return "", None
        return place.file, contracts.files[place.file].positions.line(place.path)

    def order(self, change: Change) -> tuple[int, str, int, str]:
        """Worst first, then as they stand in the files."""
        file, line = self.where(change)
        return list(Risk).index(change.risk), file, line or 0, change.what

    def plain(self, change: Change) -> dict[str, Any]:
        """A change for programs."""
        file, line = self.where(change)
        return {
            "risk": change.risk.value,
            "rule": change.rule.id if change.rule is not None else None,
            "element": change.element,
            "what": change.what,
            "why": change.rule.why if change.rule is not None else None,
            "instead": change.instead or None,
            "file": file,
            "line": line,
            "accepted": change.accepted,
        }

    def markdown(self, ref: str, changes: Sequence[Change]) -> Iterator[str]:
        """The report, for a pull request."""
        yield f"## Contracts since {ref}"
        yield ""
        if not changes and not self.shapes:
            yield "No policy, event or error reason has changed."
            return
        by_risk = {risk: [change for change in changes if change.risk is risk] for risk in Risk}
        counts = [_count(risk, found) for risk, found in by_risk.items() if found]
        if self.shapes:
            counts.insert(0, f"**{len(self.shapes)} by buf breaking**")
        yield ", ".join(counts) + "."
        if self.shapes:
            yield from ("", "### Breaking: shapes, by buf", "")
        for file, line, rule, message in self.shapes:
            yield f"- {_place(file, line)} {message} ({rule})"
        for risk, found in by_risk.items():
            if found:
                yield from ("", f"### {_HEADINGS[risk]}", "")
                yield from map(self._item, found)

    def _item(self, change: Change) -> str:
        where = _place(*self.where(change))
        rule = f" ({change.rule.id})" if change.rule is not None else ""
        accepted = " **Accepted by a comment.**" if change.accepted else ""
        return f"- {where} {change.message}{rule}{accepted}"
