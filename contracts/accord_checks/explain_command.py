"""`accord contracts explain [RULE]`: what each rule asks for and why, with a bad and good example.

Without a rule it writes all of them, as Markdown; docs/contract-rules.md is its output.
"""

import argparse
from collections.abc import Sequence
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

A finding of `buf lint` is left out with a comment above the element: `// buf:lint:ignore RULE`
(`disallow_comment_ignores: true` in buf.yaml forbids that). A change that is meant is accepted by a
comment that names it, values included, and says why:
`// buf:lint:ignore POLICY_TIMEOUT_SHORTENED timeout 10 s to 5 s: why`. Each finding ends with its
line. It accepts that change only, and only once: a line that the version before has anywhere
accepts nothing more. Above a service it accepts what its defaults change. For an event whose
message is gone it stands above `syntax` or `package` of the file; where the file is gone too, use
`ignore_only` in buf.yaml.

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
        print(document())
        return 0
    rules: list[Rule | ChangeRule] = [*LINT_RULES, *BREAKING_RULES]
    for rule in rules:
        if rule.id == name.upper():
            print(_section(rule).strip())
            return 0
    raise Refused(f"there is no rule {name!r}: `accord contracts explain` lists them")


def document() -> str:
    """All rules, as Markdown."""
    lint = _chapter("ACCORD: policies are complete and do not contradict each other", LINT_RULES)
    changes = _chapter("POLICY and POLICY_STRICT: changes", BREAKING_RULES)
    return f"{_INTRODUCTION}\n{lint}\n\n{changes}"


def _chapter(title: str, rules: Sequence[Rule] | Sequence[ChangeRule]) -> str:
    lines = [f"## {title}", "", "| rule | asks that |", "|---|---|"]
    for rule in rules:
        risk = f" ({rule.risk.value})" if isinstance(rule, ChangeRule) else ""
        lines.append(f"| [{rule.id}](#{rule.id.lower()}){risk} | {rule.purpose} |")
    return "\n".join((*lines, *map(_section, rules)))


def _section(rule: Rule | ChangeRule) -> str:
    about = f"\n### {rule.id}\n\n{rule.purpose} Otherwise {rule.why}."
    if isinstance(rule, ChangeRule):
        about += f" {rule.risk.value.capitalize()}: {', '.join(rule.categories)}."
        return about + _example("Before:", rule.before) + _example("After:", rule.after)
    return about + _example("Bad:", rule.bad) + _example("Good:", rule.good)


def _example(title: str, text: str) -> str:
    return f"\n\n{title}\n\n```proto\n{text}\n```" if text else f"\n\n{title} nothing."
