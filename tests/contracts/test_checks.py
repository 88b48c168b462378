"""What `make contracts` finds, on a copy of the repository."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.conftest import Git
from tools import contracts, generate
from tools.contracts import Result

CUSTOMERS = Path("protos/shop/customers/v1/customers.proto")
NAME = "  // Full name.\n  string name = 2;\n"
NICKNAME = "  // What friends say.\n  string nickname = 99;\n"


def edit(file: Path, old: str, new: str) -> None:
    """Replace a text that is there."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def failed(repository: Path, **environment: str) -> dict[str, Result]:
    """The checks that fail, by name; all run, whatever fails."""
    results = list(contracts.check(repository, environment))
    assert len(results) == 4 + bool(environment)
    return {result.name: result for result in results if not result.ok}


def test_committed_contracts_pass(repository: Path) -> None:
    """Contracts as committed pass every check."""
    assert failed(repository) == {}


def test_a_removed_field_is_found(repository: Path) -> None:
    """Taking away a field of a released message is named with its file, message and number."""
    edit(repository / CUSTOMERS, NAME, "")
    result = failed(repository)["breaking changes since 0.1.0"]
    assert str(CUSTOMERS) in result.output
    assert '"2" with name "name" on message "Customer"' in result.output
    assert result.remedy


def test_an_added_field_is_not_breaking(repository: Path) -> None:
    """A new field may be added; only the generated code has to follow."""
    edit(repository / CUSTOMERS, NAME, NAME + NICKNAME)
    assert set(failed(repository)) == {"generated code"}


def test_format_and_lint_are_checked_and_all_checks_run(repository: Path) -> None:
    """A bad format hides no later finding: each check reports for itself."""
    edit(repository / CUSTOMERS, NAME, NAME + "    string nickName   = 99;\n")
    found = failed(repository)
    assert set(found) == {"format", "lint", "generated code"}
    assert "nick_name" in found["lint"].output


def test_a_base_branch_is_compared_from_where_the_change_left_it(
    repository: Path, git: Git
) -> None:
    """A pull request may not break what it began with; what its base got later does not count."""
    edit(repository / CUSTOMERS, NAME, NAME + NICKNAME)
    git("commit", "--quiet", "--all", "--message=unreleased")
    git("switch", "--quiet", "--create=change")
    git("switch", "--quiet", "main")
    edit(repository / CUSTOMERS, NICKNAME, NICKNAME.replace("nickname = 99", "pet_name = 98"))
    git("commit", "--quiet", "--all", "--message=later")
    git("switch", "--quiet", "change")
    assert set(failed(repository, ACCORD_BASE="main")) == {"generated code"}
    edit(repository / CUSTOMERS, NICKNAME, "")
    (result,) = failed(repository, ACCORD_BASE="main").values()
    assert result.name.startswith("breaking changes since main")
    assert '"99" with name "nickname"' in result.output


def test_an_unknown_base_fails(repository: Path) -> None:
    """A base that was not fetched is a failure that says so, not a check left out."""
    (result,) = failed(repository, GITHUB_BASE_REF="gone").values()
    assert result.name == "breaking changes since origin/gone"
    assert "fetch" in result.remedy


def test_contracts_that_were_never_released_fail(repository: Path) -> None:
    """Without a released image there is nothing to compare with, and that is no success."""
    (repository / contracts.RELEASED / "0.1.0.binpb").unlink()
    assert set(failed(repository)) == {"breaking changes since the last release"}


def test_generated_code_must_be_that_of_the_contracts(repository: Path) -> None:
    """Code that was edited, is missing or is left over is found file by file."""
    shop = repository / "generated" / "shop"
    with (shop / "customers/v1/customers_pb2.pyi").open("a") as file:
        file.write("# edited\n")
    (shop / "orders/v1/orders_pb2_grpc.py").unlink()
    (shop / "orders/v1/gone_pb2.py").touch()
    (result,) = failed(repository).values()
    assert f"differs: {shop / 'customers/v1/customers_pb2.pyi'}" in result.output
    assert f"missing: {shop / 'orders/v1/orders_pb2_grpc.py'}" in result.output
    assert f"left over: {shop / 'orders/v1/gone_pb2.py'}" in result.output


def test_drift_compares_bytes(template: Path) -> None:
    """Two trees with the same files have no drift."""
    assert generate.drift(template / "generated/shop", template / "generated/shop") == []


def test_the_report_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Each check is named with its outcome, a failed one with its output and a remedy."""

    def results() -> Iterator[Result]:
        yield Result("lint", False, "orders.proto:3:1: bad", "change it")
        yield Result("format", True, "", "unused")

    assert not contracts.report(results())
    assert capsys.readouterr().out.splitlines() == [
        "contracts: lint ... FAILED",
        "    orders.proto:3:1: bad",
        "    -> change it",
        "contracts: format ... ok",
    ]
