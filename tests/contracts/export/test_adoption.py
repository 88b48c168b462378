"""docs/contract-checks.md, followed step by step in a repository that knows nothing of this one."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google.protobuf
import pytest
import yaml

from tests.contracts.export import support

PAGE = support.ROOT / "docs" / "contract-checks.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"(?://|#) (\S+\.\w+)\n")
HERE = "https://github.com/OWNER/accord"
# In place of protoc-gen-go, which refuses a file without `go_package`: writes down what it is told.
GO = """
import sys
from google.protobuf.compiler import plugin_pb2
request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
with open({told!r}, "a") as out:
    for name in request.file_to_generate:
        (file,) = (file for file in request.proto_file if file.name == name)
        print(name, file.options.go_package or "none", file=out)
sys.stdout.buffer.write(plugin_pb2.CodeGeneratorResponse().SerializeToString())
"""


@dataclass(frozen=True)
class Block:
    """A block of the page: a file, commands, or what the commands before it say."""

    kind: str
    text: str
    file: str | None


def blocks() -> Iterator[Block]:
    """All of them, in order."""
    for kind, text in FENCE.findall(PAGE.read_text()):
        named = FILE.match(text)
        yield Block(kind, text, named[1] if named else None)


class Repository:
    """A throw-away repository, with the environment that step 1 makes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        who = {"NAME": "Ada", "EMAIL": "ada@example.com"}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            **{f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in who.items()},
            "GIT_CONFIG_GLOBAL": os.devnull,
            "PATH": os.pathsep.join((str(support.SCRIPTS), os.environ["PATH"])),
            "PRE_COMMIT_HOME": str(root.parent / "pre-commit"),
        }

    def run(self, commands: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run commands as a shell does that stops at the first failure."""
        # It is installed here, and there is no network in a test.
        skipped = re.sub(r"^pip install .*$", "true", commands, flags=re.MULTILINE)
        return subprocess.run(
            ("bash", "-e", "-c", skipped),
            cwd=self.root,
            env={**self._environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def done(self, commands: str, **environment: str) -> str:
        """Run commands that succeed; what they say."""
        ran = self.run(commands, **environment)
        assert ran.returncode == 0, f"{commands}\n{ran.stdout}"
        return ran.stdout

    def write(self, name: str, text: str) -> None:
        """Write a file of the repository."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository in which somebody has followed the page to its end."""
    repository = Repository(tmp_path_factory.mktemp("adopted") / "acme")
    repository.root.mkdir()
    repository.done("git init --quiet --initial-branch=main")
    page = list(blocks())
    for block, after in zip(page, [*page[1:], None], strict=True):
        said = after.text if after and after.kind == "text" and after.file is None else None
        if block.file is not None:
            repository.write(block.file, block.text)
        elif block.kind == "sh" and said is None:
            assert repository.done(block.text) == "", block.text
        elif block.kind == "sh":
            ran = repository.run(block.text)
            assert ran.returncode in (10, 20, 100), ran.stdout
            for line in (said or "").splitlines():
                assert line in ran.stdout, f"{block.text}\n{ran.stdout}"
            if "buf" in block.text:
                assert ran.stdout.count("\n") == len((said or "").splitlines()), ran.stdout
    return repository


def test_page_can_be_followed(adopted: Repository) -> None:
    """Every command does what the page says it does, and the last state is clean."""
    assert adopted.done("buf lint") == ""
    assert adopted.done("buf breaking --against '.git#branch=main'") == ""


def test_first_policies_are_a_break_to_buf(adopted: Repository) -> None:
    """Without the page's `except`, `buf` refuses in step 4 what ACCORD asks for."""
    first = adopted.done("git rev-list main | tail -1").strip()
    strict = (adopted.root / "buf.yaml").read_text().replace("except:", "# except:")
    against = f"--against '.git#ref={first}' --config '{strict}'"
    ran = adopted.run(f"buf breaking '.git#branch=main' {against}")
    assert ran.returncode == 100
    assert ran.stdout.count("\n") == 1
    assert 'changed option "idempotency_level"' in ran.stdout


def test_vocabulary_is_generated_with_the_contracts(adopted: Repository, tmp_path: Path) -> None:
    """Go's plugin is told the package of every file; Python needs the vocabulary or `accord`."""
    plugin = tmp_path / "bin" / "protoc-gen-go"
    plugin.parent.mkdir()
    told = tmp_path / "told"
    plugin.write_text(f"#!{sys.executable}\n{GO.format(told=str(told))}")
    plugin.chmod(0o755)
    path = os.pathsep.join((str(plugin.parent), str(support.SCRIPTS), os.environ["PATH"]))
    adopted.done("buf generate", PATH=path)
    assert dict(line.split() for line in told.read_text().splitlines()) == {
        "accord/v1/policy.proto": "example.com/acme/gen/accord/v1;accordv1",
        "acme/billing/v1/billing.proto": "example.com/acme/gen/acme/billing/v1;billingv1",
    }

    compiler = f"{sys.executable} -m grpc_tools.protoc -Iprotos --python_out"
    billing = "acme/billing/v1/billing.proto"
    for name, files in (("alone", billing), ("both", f"{billing} accord/v1/policy.proto")):
        adopted.done(f"mkdir {tmp_path / name} && {compiler}={tmp_path / name} {files}")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "google").symlink_to(Path(google.protobuf.__file__).parents[1])
    imported = f"{sys.executable} -S -c 'import acme.billing.v1.billing_pb2'"
    lib = str(tmp_path / "lib")
    adopted.done(imported, PYTHONPATH=f"{lib}:{tmp_path / 'both'}")
    ran = adopted.run(imported, PYTHONPATH=f"{lib}:{tmp_path / 'alone'}")
    assert "No module named 'accord'" in ran.stdout
    with_accord = (
        f"{sys.executable} -c 'import acme.billing.v1.billing_pb2, accord_checks.contracts'"
    )
    for name in ("alone", "both"):
        adopted.done(with_accord, PYTHONPATH=str(tmp_path / name))


def test_configuration_that_is_there_already(adopted: Repository, tmp_path: Path) -> None:
    """ACCORD and POLICY join what somebody uses: another style stays, stated services pass."""
    (configuration,) = (block.text for block in blocks() if block.text.startswith("# It had"))
    shutil.copytree(adopted.root, tmp_path / "acme")
    repository = Repository(tmp_path / "acme")
    repository.write("buf.yaml", configuration)
    repository.write(
        "protos/acme/shelf/v1/shelf.proto",
        'syntax = "proto3";\n\npackage acme.shelf.v1;\n\nservice Shelves {\n'
        "  rpc GetShelf(Shelf) returns (Shelf);\n}\n\nmessage Shelf {}\n",
    )
    ran = repository.run("buf lint")
    place = "protos/acme/shelf/v1/shelf.proto:5:1"
    assert ran.stdout.startswith(f"{place}:Shelves states no policy")
    assert ran.stdout.count("\n") == 1
    first = repository.done("git rev-list main | tail -1").strip()
    repository.done(f"buf breaking --against '.git#ref={first}'")


def test_first_configuration_is_merged_by_itself(adopted: Repository, tmp_path: Path) -> None:
    """A base without buf.yaml cannot be compared with, as the page says."""
    base = Repository(tmp_path / "base")
    bare = next(block for block in blocks() if block.kind == "proto")
    base.write(bare.file or "", bare.text)
    ran = adopted.run(f"buf breaking --against {base.root}")
    assert ran.returncode == 100
    said = " ".join(PAGE.read_text().split())
    (message,) = re.findall(r"and says `([^`]+)`", said)
    assert message in ran.stdout


def test_workflow_judges_a_pull_request(adopted: Repository, tmp_path: Path) -> None:
    """The steps of the workflow pass a good change, and stop a bad one with its line.

    What others have merged meanwhile is not laid at its door.
    """
    shutil.copytree(adopted.root, tmp_path / "origin")
    origin = Repository(tmp_path / "origin")
    origin.done("git add . && git commit --quiet --message accepted")
    origin.done("git clone --quiet . ../clone")
    clone = Repository(tmp_path / "clone")
    origin.done("sed -i.old 's/seconds: 2}/seconds: 4}/' protos/acme/billing/v1/billing.proto")
    origin.done("git commit --quiet --all --message slower && git -C ../clone fetch --quiet")
    workflow = yaml.safe_load((adopted.root / ".github/workflows/contracts.yml").read_text())
    steps = [step["run"] for step in workflow["jobs"]["contracts"]["steps"] if "run" in step]
    summary = tmp_path / "summary.md"
    given = {"GITHUB_BASE_REF": "main", "GITHUB_STEP_SUMMARY": str(summary)}
    for step in steps:
        clone.done(step, **given)
    assert "No policy, event or error reason has changed" in summary.read_text()

    clone.done("sed -i.old 's/seconds: 2}/seconds: 1}/' protos/acme/billing/v1/billing.proto")
    clone.done("git worktree remove ../base; git commit --quiet --all --message faster")
    ran = {step: clone.run(step, **given) for step in steps}
    (failed,) = (step for step in steps if ran[step].returncode != 0)
    assert failed.startswith("buf breaking")
    assert "::error file=protos/acme/billing/v1/billing.proto,line=12," in ran[failed].stdout
    assert "(POLICY_TIMEOUT_SHORTENED)" in summary.read_text()


def test_hooks_judge_a_commit(adopted: Repository, tmp_path: Path) -> None:
    """pre-commit, configured as the page says, passes a good state and stops a bad one."""
    hooks = Repository(tmp_path / "accord")
    hooks.root.mkdir()
    shutil.copy(support.ROOT / ".pre-commit-hooks.yaml", hooks.root)
    hooks.done("git init --quiet && git add . && git commit --quiet --message hooks")
    hooks.done("git tag v0.3.0")
    shutil.copytree(adopted.root, tmp_path / "acme")
    repository = Repository(tmp_path / "acme")
    configuration = (adopted.root / ".pre-commit-config.yaml").read_text()
    assert HERE in configuration
    repository.write(".pre-commit-config.yaml", configuration.replace(HERE, str(hooks.root)))
    repository.done("git add . && git commit --quiet --message accepted")
    passed = repository.done("pre-commit run --all-files")
    assert passed.count("Passed") == 2
    repository.done("sed -i.old 's/seconds: 2}/seconds: 1}/' protos/acme/billing/v1/billing.proto")
    stopped = repository.run("pre-commit run --all-files")
    assert stopped.returncode == 1
    assert "the timeout of GetInvoice went from 2 s to 1 s" in stopped.stdout


def test_strange_contracts_crash_nothing(adopted: Repository, tmp_path: Path) -> None:
    """proto2, no package, nested packages, 300 RPCs: findings at their lines, never a trace."""
    shutil.copytree(adopted.root, tmp_path / "acme")
    repository = Repository(tmp_path / "acme")
    shutil.copytree(support.HERE / "protos", repository.root / "protos", dirs_exist_ok=True)
    for number in range(30):
        rpcs = "".join(f"  rpc Do{rpc}(M) returns (M);\n" for rpc in range(10))
        repository.write(
            f"protos/large/p{number}/v1/s.proto",
            f'syntax = "proto3";\n\npackage large.p{number}.v1;\n\n'
            f"service S {{\n{rpcs}}}\n\nmessage M {{}}\n",
        )
    repository.write(
        "protos/modern/v1/m.proto",
        'edition = "2023";\n\npackage modern.v1;\n\nservice S {\n  rpc Do(M) returns (M);\n}\n\n'
        "message M {\n  string text = 1;\n}\n",
    )
    repository.write(
        "buf.yaml",
        (repository.root / "buf.yaml").read_text().replace("[STANDARD, ACCORD]", "[ACCORD]"),
    )
    ran = repository.run("buf lint")
    assert ran.returncode == 100
    assert "Traceback" not in ran.stdout
    for place in ("large/p7/v1/s.proto:5:1:S states no policy", "modern/v1/m.proto:5:1:S states"):
        assert f"protos/{place}" in ran.stdout
    diff = repository.run("accord contracts diff main --json")
    assert diff.returncode in (0, 10, 20), diff.stdout
    for target in ("service-config", "envoy", "asyncapi", "reference", "protoset"):
        repository.done(f"accord contracts export {target} -o out/{target}")
