"""Contracts with many RPCs and no policy: a baseline, then a policy for one RPC at a time."""

import shutil
from pathlib import Path

import pytest

from accord_checks import baseline, cli
from accord_checks.breaking_rules.compare import compare
from accord_checks.contracts import Contracts
from accord_checks.lint_rules.all_rules import LINT_RULES
from tests.contracts import written_contracts
from tests.contracts.written_contracts import Said

CONFIGURATION = """version: v2
lint:
  use: [ACCORD]
  ignore: [accord, buf]
plugins:
  - plugin: buf-plugin-accord
"""
HEAD = """syntax = "proto3";
package many.v1;
import "accord/v1/policy.proto";
message DoRequest {}
message DoResponse {}
service ManyService {
"""
RPC = "  rpc Do%s(DoRequest) returns (DoResponse) {%s}\n"
RPCS = [RPC % (number, "") for number in range(130)]
OWN = """
    option idempotency_level = NO_SIDE_EFFECTS;
    option (accord.v1.policy) = {timeout: {seconds: 2} %s};
  """


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with 130 RPCs, in which we are."""
    root = written_contracts.write(tmp_path / "many", {"many.proto": ""}, CONFIGURATION)
    monkeypatch.chdir(root)
    return root


def put(root: Path, rpcs: list[str], more: str = "") -> None:
    """Write the contract."""
    (root / "many.proto").write_text(f"{HEAD}{''.join(rpcs)}}}\n{more}")


def lint(root: Path) -> list[Said]:
    return written_contracts.findings(root, "lint")


def test_after_one_command_only_what_is_new_is_found(
    many: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was there is left out; a service, and a mistake in a first policy, are found."""
    put(many, RPCS)
    assert [said.rule for said in lint(many)] == ["ACCORD_POLICY_STATED"]
    assert cli.main(["contracts", "baseline"]) == 0
    assert capsys.readouterr().out == "findings in accord-baseline.txt, to be committed: 1\n"
    assert lint(many) == []
    other = "service OtherService {\n  rpc Do(DoRequest) returns (DoResponse);\n}\n"
    put(many, [*RPCS[:7], RPC % (7, OWN % ""), *RPCS[8:]], other)
    found = [(said.rule, said.line) for said in lint(many)]
    line = HEAD.count("\n") + 8
    assert found == [("ACCORD_CALLERS_STATED", line), ("ACCORD_POLICY_STATED", line + 127)]


def test_a_baseline_only_shrinks(many: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run again, it takes out what is mended and puts nothing in."""
    put(many, RPCS, "service OldService {\n  rpc Do(DoRequest) returns (DoResponse);\n}\n")
    cli.main(["contracts", "baseline"])
    capsys.readouterr()
    put(many, RPCS, "service NewService {\n  rpc Do(DoRequest) returns (DoResponse);\n}\n")
    assert cli.main(["contracts", "baseline"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "findings mended: 1 of 2",
        "new findings, not written down (see `buf lint`): 1",
    ]
    assert baseline.known() == {"ACCORD_POLICY_STATED many.proto: ManyService states no policy"}
    assert [said.message.partition(" ")[0] for said in lint(many)] == ["NewService"]


def version(many: Path, *stated: int, option: str = "") -> Contracts:
    """The contracts with a policy on some RPCs, and an option of the service."""
    rpcs = [RPC % (n, OWN % 'allow: ["*"]' if n in stated else "") for n in range(130)]
    put(many, [option, *rpcs])
    return written_contracts.contracts(many)


def test_the_policy_of_one_rpc_is_judged_alone(many: Path) -> None:
    """A good policy on one RPC of 130 has no finding; its service is asked to go on, as before."""
    found = version(many, 7)
    said = [(rule.id, finding.what) for rule in LINT_RULES for finding in rule.check(found)]
    assert said == [("ACCORD_POLICY_STATED", "ManyService states no policy")]


def test_policies_that_come_and_go_one_by_one(many: Path) -> None:
    """A second policy is one that begins, not a timeout that is shorter; one that goes breaks."""
    one, two = version(many, 7), version(many, 7, 8)
    whole = version(many, 7, 8, option='option (accord.v1.service) = {owner: "a"};\n')
    for then, now, expected in (
        (one, two, ["POLICY_BEGUN: a policy is stated for Do8 now"]),
        (two, one, ["POLICY_REMOVED: no policy is stated for Do8 now"]),
        (
            two,
            whole,
            ["POLICY_BEGUN: a policy is stated for Do0, Do1, Do2 and 125 more now"],
        ),
    ):
        found = [f"{change.rule.id}: {change.what}" for change in compare(then, now) if change.rule]
        assert found == expected


WHOLE = CONFIGURATION.replace(
    "plugins:",
    "breaking:\n  use: [FILE, POLICY]\n  except: [RPC_SAME_IDEMPOTENCY_LEVEL]\nplugins:",
)
BARE = HEAD.replace('import "accord/v1/policy.proto";\n', "")


def part(number: int, rpcs: list[str], head: str = BARE, more: str = "") -> str:
    """A file of a service that has these RPCs."""
    return f"{head.replace('many', f'part{number}')}{''.join(rpcs)}}}\n{more}"


def test_a_repository_without_any_option_adopts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 13 services with 130 RPCs: one command, then each policy is judged by itself.

    What stands there may be reordered and grow; a new service is found, and one that states enough
    leaves the baseline, into which nobody writes.
    """
    rpcs = RPCS[:10]
    files = {f"part{number}.proto": part(number, rpcs) for number in range(13)}
    root = written_contracts.write(tmp_path / "root", files, WHOLE)
    monkeypatch.chdir(root)
    assert len(lint(root)) == 13
    assert cli.main(["contracts", "baseline"]) == 0
    assert lint(root) == []
    base = shutil.copytree(root, tmp_path / "base")

    def breaking() -> list[Said]:
        return written_contracts.findings(root, "breaking", "--against", str(base))

    # A first policy, and what else changes beside it.
    good, bad = RPC % (3, OWN % 'allow: ["*"]'), RPC % (3, OWN % "retry: {max_attempts: 9}")
    file = root / "part5.proto"
    file.write_text(part(5, [*rpcs[4:], RPC % ("More", ""), good, *rpcs[:3]], HEAD))
    assert lint(root) == []
    assert breaking() == []
    file.write_text(part(5, [*rpcs[:3], bad, *rpcs[4:]], HEAD))
    own = range(HEAD.count("\n") + 4, HEAD.count("\n") + 8)
    found = lint(root)
    assert {said.rule for said in found} == {"ACCORD_CALLERS_STATED", "ACCORD_RETRY_BOUNDS"}
    assert all(said.file == "part5.proto" and said.line in own for said in found)
    assert breaking() == []

    # A service that is new, and one that states everything.
    service = 'option (accord.v1.service) = {owner: "a" defaults: {allow: ["*"]}};\n'
    reads = [RPC % (number, OWN % "") for number in range(10)]
    file.write_text(
        part(5, [service, *reads], HEAD, "service New { rpc Do(M) returns (M); }\nmessage M {}\n")
    )
    assert [said.message.partition(":")[0] for said in lint(root)] == ["New states no policy"]
    assert breaking() == []
    capsys.readouterr()
    assert cli.main(["contracts", "baseline"]) == 0
    assert "findings mended: 1 of 13" in capsys.readouterr().out
    assert cli.main(["contracts", "baseline", "--against", str(base)]) == 0
    with (root / baseline.FILE).open("a") as written:
        written.write("ACCORD_POLICY_STATED part5.proto: New states no policy\n")
    assert cli.main(["contracts", "baseline", "--against", str(base)]) == 1
    assert "1 are new: ACCORD_POLICY_STATED part5.proto" in capsys.readouterr().err
