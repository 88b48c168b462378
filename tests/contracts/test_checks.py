"""What `make contracts` finds, on a copy of the repository."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.conftest import Git
from tools import contracts, generate
from tools.contracts import Result

CUSTOMERS = Path("protos/shop/customers/v1/customers.proto")
NAME = "  // Full name.\n  string name = 2;\n"
NICKNAME = "  // What friends say.\n  string nickname = 99;\n"
GENERATED = {
    "differs": "payments/v1/payments_pb2.pyi",
    "missing": "orders/v1/orders_pb2_grpc.py",
    "left over": "orders/v1/gone_pb2.py",
}


def edit(file: Path, old: str, new: str) -> None:
    """Replace a text that is there."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def failed(repository: Path, **environment: str) -> dict[str, Result]:
    """The checks that fail, by name; all run, whatever fails."""
    results = list(contracts.check(repository, environment))
    assert len(results) == 5 + bool(environment)
    return {result.name: result for result in results if not result.ok}


@pytest.fixture(scope="module")
def mistaken(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What fails in a repository in which a lot is wrong."""
    repository = tmp_path_factory.mktemp("mistaken") / "repository"
    shutil.copytree(template, repository)
    edit(repository / CUSTOMERS, NAME, "    string nickName   = 99;\n")
    edit(repository / CUSTOMERS, "timeout: {seconds: 2}", "timeout: {seconds: 1}")
    edit(repository / CUSTOMERS, "max_attempts: 3", "max_attempts: 9")
    shop = repository / "generated" / "shop"
    with (shop / GENERATED["differs"]).open("a") as file:
        file.write("# edited\n")
    (shop / GENERATED["missing"]).unlink()
    (shop / GENERATED["left over"]).touch()
    return failed(repository)


def test_committed_contracts_pass(repository: Path) -> None:
    """Contracts as committed pass every check."""
    assert failed(repository) == {}


def test_all_checks_run_whatever_fails(mistaken: dict[str, Result]) -> None:
    """A failed check hides no other one: each reports for itself."""
    assert mistaken.keys() == {"format", "lint", "breaking changes since 0.1.0", "generated code"}


def test_a_removed_field_is_found(mistaken: dict[str, Result]) -> None:
    """Taking away a field of a released message is named with its file, message and number."""
    result = mistaken["breaking changes since 0.1.0"]
    assert str(CUSTOMERS) in result.output
    assert '"2" with name "name" on message "Customer"' in result.output
    assert result.remedy


def test_a_shortened_timeout_is_found(mistaken: dict[str, Result]) -> None:
    """A change of policy that leaves every shape as it was breaks callers all the same."""
    result = mistaken["breaking changes since 0.1.0"]
    assert f"{CUSTOMERS}:18:" in result.output
    assert "went from 2 s to 1 s" in result.output


def test_a_mistake_in_a_policy_is_found(mistaken: dict[str, Result]) -> None:
    """A policy that contradicts another contract is a finding of `lint`, at its line."""
    assert f"{CUSTOMERS}:20:" in mistaken["lint"].output


def test_a_wrong_name_and_a_bad_format_are_found(mistaken: dict[str, Result]) -> None:
    """The rules and the format of buf hold, too."""
    assert "nick_name" in mistaken["lint"].output
    assert "nickName   = 99" in mistaken["format"].output


def test_generated_code_must_be_that_of_the_contracts(mistaken: dict[str, Result]) -> None:
    """Code that was edited, is missing or is left over is found file by file."""
    found = mistaken["generated code"].output.splitlines()
    for problem, file in GENERATED.items():
        assert any(line.startswith(problem) and line.endswith(file) for line in found), found


def test_an_added_field_is_not_breaking(repository: Path) -> None:
    """A new field may be added; only the generated code has to follow."""
    edit(repository / CUSTOMERS, NAME, NAME + NICKNAME)
    assert set(failed(repository)) == {"generated code"}


def test_a_promise_that_grows_is_not_breaking(repository: Path) -> None:
    """A key may be obeyed that was not; an RPC that was idempotent may not stop being so."""
    promise = "    option (accord.v1.policy) = {\n      idempotency: {key: KEY_%s}"
    level = "    option idempotency_level = IDEMPOTENT;\n"
    edit(repository / CUSTOMERS, promise % "REQUIRED", level + promise % "UNSPECIFIED")
    (repository / contracts.RELEASED / "0.1.0.binpb").unlink()
    image = repository / contracts.RELEASED / "0.1.0.binpb"
    subprocess.run((contracts.SCRIPTS / "buf", "build", "-o", image), cwd=repository, check=True)
    edit(repository / CUSTOMERS, "KEY_UNSPECIFIED", "KEY_NATURAL")
    assert "breaking changes since 0.1.0" not in failed(repository)
    edit(repository / CUSTOMERS, "    option idempotency_level = NO_SIDE_EFFECTS;\n", "")
    found = failed(repository)["breaking changes since 0.1.0"].output
    assert "GetCustomer went from NO_SIDE_EFFECTS to IDEMPOTENCY_UNKNOWN" in found


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


def test_nothing_to_compare_with_is_a_failure(repository: Path) -> None:
    """Without a released image, or a base that was fetched, a check fails; it is not left out."""
    (repository / contracts.RELEASED / "0.1.0.binpb").unlink()
    found = failed(repository, GITHUB_BASE_REF="gone")
    release, base = "breaking changes since the last release", "breaking changes since origin/gone"
    assert found.keys() == {release, base}
    assert "make release-contracts" in found[release].remedy
    assert "fetch" in found[base].remedy


def test_drift_compares_bytes(template: Path) -> None:
    """Two trees with the same files have no drift."""
    assert generate.drift(template / "generated/shop", template / "generated/shop") == []


def test_the_report_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Each check is named with its outcome, a failed one with its output and a remedy."""

    def results() -> Iterator[Result]:
        yield Result("lint", False, "orders.proto:3:1: bad", "change it", 0.61)
        yield Result("format", True, "", "unused")

    assert not contracts.report(results())
    assert capsys.readouterr().out.splitlines() == [
        "contracts: lint ... FAILED (0.6 s)",
        "    orders.proto:3:1: bad",
        "    -> change it",
        "contracts: format ... ok (0.0 s)",
    ]
