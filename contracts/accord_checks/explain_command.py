"""`accord contracts explain [RULE]`: what each rule asks for and why, with a bad and good example.

Without a rule it writes all of them, as Markdown; docs/contract-rules.md is its output.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Final

from accord_checks import Refused
from accord_checks.breaking_rules.all_rules import BREAKING_RULES
from accord_checks.breaking_rules.change import ChangeRule
from accord_checks.lint_rules.all_rules import LINT_RULES
from accord_checks.lint_rules.rule import Rule

_INTRODUCTION: Final = """\
# Rules for contracts

What `buf-plugin-accord` checks. `buf lint` runs the category ACCORD; `buf breaking` runs POLICY
(breaking changes) or POLICY_STRICT (those, and risky ones). `accord contracts diff REF` reports the
same changes for reviewers, and the safe ones too.

A finding of `buf lint` is left out with a comment above the element, and a change that is meant is
accepted the same way: `// buf:lint:ignore RULE: why`. (`disallow_comment_ignores: true` in buf.yaml
forbids the former only.) A comment accepts the change that brings it: a line that the version
before has too accepts nothing more. For an event whose message is gone it stands above `syntax` or
`package` of the file; where the file is gone too, use `ignore_only` in buf.yaml.

The rules of ACCORD judge only services that state a policy, except ACCORD_POLICY_STATED, which asks
for one.

Every finding is one line at the option at fault: what is wrong, why it matters, what to write
instead. `accord contracts explain RULE` shows the section of a rule.

This page is written by `accord contracts explain > docs/contract-rules.md`.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser("explain", help="explain one rule, or all of them as Markdown")
    parser.add_argument("rule", metavar="RULE", nargs="?", help="e.g. ACCORD_TIMEOUT_STATED")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it. Raises Refused for an unknown rule."""
    name: str | None = arguments.rule
    if name is None:
        print("\n".join(document()))
        return 0
    rules: list[Rule | ChangeRule] = [*LINT_RULES, *BREAKING_RULES]
    for rule in rules:
        if rule.id == name.upper():
            print("\n".join(_section(rule)).strip())
            return 0
    raise Refused(f"there is no rule {name!r}: `accord contracts explain` lists them")


def document() -> Iterator[str]:
    """All rules, as Markdown."""
    yield _INTRODUCTION
    yield "## ACCORD: policies are complete and do not contradict each other"
    yield from _table(LINT_RULES)
    for rule in LINT_RULES:
        yield from _section(rule)
    yield ""
    yield "## POLICY and POLICY_STRICT: changes"
    yield from _table(BREAKING_RULES)
    for change in BREAKING_RULES:
        yield from _section(change)


def _table(rules: Sequence[Rule] | Sequence[ChangeRule]) -> Iterator[str]:
    yield ""
    yield "| rule | asks that |"
    yield "|---|---|"
    for rule in rules:
        risk = f" ({rule.risk.value})" if isinstance(rule, ChangeRule) else ""
        yield f"| [{rule.id}](#{rule.id.lower()}){risk} | {rule.purpose} |"


def _section(rule: Rule | ChangeRule) -> Iterator[str]:
    yield ""
    yield f"### {rule.id}"
    yield ""
    if isinstance(rule, ChangeRule):
        which = ", ".join(rule.categories)
        yield f"{rule.purpose} Otherwise {rule.why}. {rule.risk.value.capitalize()}: {which}."
        yield from _example("Before:", rule.before)
        yield from _example("After:", rule.after)
    else:
        yield f"{rule.purpose} Otherwise {rule.why}."
        yield from _example("Bad:", rule.bad)
        yield from _example("Good:", rule.good)


def _example(title: str, text: str) -> Iterator[str]:
    yield ""
    if not text:
        yield f"{title} nothing."
        return
    yield title
    yield ""
    yield "```proto"
    yield text
    yield "```"
