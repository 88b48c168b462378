"""Each rule refuses its own bad example, and nothing is wrong with the good one."""

from pathlib import Path

import pytest

from accord_checks import cli, explain
from accord_checks.breaking import PUBLISHED, compare
from accord_checks.breaking.change import ChangeRule, Risk
from accord_checks.model import Contracts
from accord_checks.rule import Rule
from accord_checks.rules import LINT
from tests.contracts.rules import kit
from tools.contracts import ROOT


def _file(rule: str, side: str) -> str:
    return f"{rule.lower()}_{side}.proto"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All examples in one module, each in a package of its own."""
    files = {}
    for rule in LINT:
        for side, text in (("bad", rule.bad), ("good", rule.good)):
            files[_file(rule.id, side)] = kit.example(text, f"{rule.id.lower()}.{side}.v1")
    for change in PUBLISHED:
        for side, text in (("before", change.before), ("after", change.after)):
            files[_file(change.id, side)] = kit.example(text, f"{change.id.lower()}.v1")
    # Two versions of one package cannot be compiled together.
    root = tmp_path_factory.mktemp("examples")
    now = {name: text for name, text in files.items() if not name.endswith("_before.proto")}
    then = {name: text for name, text in files.items() if name.endswith("_before.proto")}
    kit.write(root / "now", now)
    kit.write(root / "then", then)
    return root


@pytest.fixture(scope="module")
def now(examples: Path) -> Contracts:
    return kit.contracts(examples / "now")


@pytest.fixture(scope="module")
def then(examples: Path) -> Contracts:
    return kit.contracts(examples / "then")


def _only(contracts: Contracts, name: str) -> Contracts:
    kept = [
        file.proto
        for file in contracts.files.values()
        if file.name == name or file.name in kit.VOCABULARY or file.name.startswith("google/")
    ]
    return Contracts(kept, kit.VOCABULARY)


@pytest.mark.parametrize("rule", LINT, ids=lambda rule: rule.id)
def test_a_bad_example_is_refused_and_the_good_one_is_clean(rule: Rule, now: Contracts) -> None:
    """The bad example has a finding of its rule; the good one has no finding of any rule."""
    bad = _only(now, _file(rule.id, "bad"))
    found = [rule.message(finding) for finding in rule.check(bad)]
    assert found
    assert all("\n" not in message for message in found)
    good = _only(now, _file(rule.id, "good"))
    assert {
        other.id: [other.message(finding) for finding in other.check(good)]
        for other in LINT
        if list(other.check(good))
    } == {}


@pytest.mark.parametrize("rule", PUBLISHED, ids=lambda rule: rule.id)
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
    assert written == "\n".join(explain.document()) + "\n", (
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
    rules: list[Rule | ChangeRule] = [*LINT, *PUBLISHED]
    ids = [rule.id for rule in rules]
    assert len(set(ids)) == len(ids)
    assert all(rule.id.startswith("ACCORD_") for rule in LINT)
    assert all(rule.id.startswith("POLICY_") for rule in PUBLISHED)
    for rule in rules:
        assert rule.purpose[0].isupper()
        assert rule.purpose.endswith(".")
        assert len(rule.purpose) <= 256
        assert rule.why[0].islower()
