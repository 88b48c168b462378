"""Each rule refuses its own bad example, and nothing is wrong with the good one."""

from pathlib import Path

import pytest

from accord_checks import cli, explain_command
from accord_checks.breaking_rules.all_rules import BREAKING_RULES
from accord_checks.breaking_rules.change import ChangeRule, Risk
from accord_checks.breaking_rules.compare import compare
from accord_checks.contracts import Contracts
from accord_checks.lint_rules.all_rules import LINT_RULES
from accord_checks.lint_rules.rule import Rule
from tests.contracts import written_contracts
from tools.contracts import ROOT


def _file(rule: str, side: str) -> str:
    return f"{rule.lower()}_{side}.proto"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All examples in one module, each in a package of its own."""
    files = {}
    for rule in LINT_RULES:
        for side, text in (("bad", rule.bad), ("good", rule.good)):
            files[_file(rule.id, side)] = written_contracts.example(
                text, f"{rule.id.lower()}.{side}.v1"
            )
    for change in BREAKING_RULES:
        for side, text in (("before", change.before), ("after", change.after)):
            files[_file(change.id, side)] = written_contracts.example(
                text, f"{change.id.lower()}.v1"
            )
    # Two versions of one package cannot be compiled together.
    root = tmp_path_factory.mktemp("examples")
    now = {name: text for name, text in files.items() if not name.endswith("_before.proto")}
    then = {name: text for name, text in files.items() if name.endswith("_before.proto")}
    written_contracts.write(root / "now", now)
    written_contracts.write(root / "then", then)
    return root


@pytest.fixture(scope="module")
def now(examples: Path) -> Contracts:
    return written_contracts.contracts(examples / "now")


@pytest.fixture(scope="module")
def then(examples: Path) -> Contracts:
    return written_contracts.contracts(examples / "then")


def _only(contracts: Contracts, name: str) -> Contracts:
    kept = [
        file.proto
        for file in contracts.files.values()
        if file.name == name
        or file.name in written_contracts.VOCABULARY
        or file.name.startswith("google/")
    ]
    return Contracts(kept, written_contracts.VOCABULARY)


@pytest.mark.parametrize("rule", LINT_RULES, ids=lambda rule: rule.id)
def test_a_bad_example_is_refused_and_the_good_one_is_clean(rule: Rule, now: Contracts) -> None:
    """The bad example has a finding of its rule; the good one has no finding of any rule."""
    bad = _only(now, _file(rule.id, "bad"))
    found = [rule.message(finding) for finding in rule.check(bad)]
    assert found
    assert all("\n" not in message for message in found)
    good = _only(now, _file(rule.id, "good"))
    assert {
        other.id: [other.message(finding) for finding in other.check(good)]
        for other in LINT_RULES
        if list(other.check(good))
    } == {}


@pytest.mark.parametrize("rule", BREAKING_RULES, ids=lambda rule: rule.id)
def test_an_example_of_a_change_is_found(rule: ChangeRule, then: Contracts, now: Contracts) -> None:
    """Between the two versions of its example, a rule finds its change, and says it in one line."""
    before, after = (
        _only(then, _file(rule.id, "before")),
        _only(now, _file(rule.id, "after")),
    )
    found = [change for change in compare(before, after) if change.rule is rule]
    assert found
    assert all("\n" not in change.message for change in found)
    assert all(change.risk is rule.risk for change in found)
    assert rule.risk is not Risk.SAFE


def test_the_documentation_is_that_of_the_rules() -> None:
    """docs/contract-rules.md is what `accord contracts explain` writes."""
    written = (ROOT / "docs" / "contract-rules.md").read_text()
    assert written == explain_command.document() + "\n", (
        "run `accord contracts explain > docs/contract-rules.md`"
    )


def test_a_single_rule_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """What a finding names can be looked up; an unknown name is one line."""
    assert cli.main(["contracts", "explain", "ACCORD_TIMEOUT_STATED"]) == 0
    assert "Good:" in capsys.readouterr().out
    assert cli.main(["contracts", "explain", "NO_SUCH_RULE"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_rules_have_names_that_buf_takes() -> None:
    """Ids are unique and begin with their family; purposes are sentences of at most 256."""
    rules: list[Rule | ChangeRule] = [*LINT_RULES, *BREAKING_RULES]
    ids = [rule.id for rule in rules]
    assert len(set(ids)) == len(ids)
    assert all(rule.id.startswith("ACCORD_") for rule in LINT_RULES)
    assert all(rule.id.startswith("POLICY_") for rule in BREAKING_RULES)
    for rule in rules:
        assert rule.purpose[0].isupper()
        assert rule.purpose.endswith(".")
        assert len(rule.purpose) <= 256
        assert rule.why[0].islower()
