"""What is skipped stands in one file, with its reason."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.support.skips import FILE, is_listed

ROOT: Final = Path(__file__).parents[1]

SUITE: Final = """
import pytest

@pytest.mark.skip(reason="why: skip")
def test_one() -> None: ...

@pytest.mark.skipif(True, reason="why: skipif")
def test_two() -> None: ...

@pytest.mark.xfail(reason="why: xfail")
def test_three() -> None:
    assert False
"""


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "--numprocesses=1")], ids=["no", "one"])
def test_a_skip_that_is_not_named_fails_the_run(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """Each is printed with its reason, and the exit code is that of a failure."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    file = 'import pytest\npytest.skip("why: file", allow_module_level=True)\n'
    (tmp_path / "test_file.py").write_text(file)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.skips", *workers]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "-c", "/dev/null", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    section = done.stdout.partition("skipped, and not in tests/skips.toml")[2]
    assert re.findall("why: (.*)", section) == ["file", "skip", "skipif", "xfail"]


def test_what_a_name_covers() -> None:
    """A file, a test or a case, and nothing that only begins with the same letters."""
    assert is_listed("tests/test_a.py::test_x[1]", ["tests/test_a.py"])
    assert is_listed("tests/test_a.py::test_x[1]", ["tests/test_a.py::test_x"])
    assert is_listed("tests/test_a.py::test_x[1]", ["tests/test_a.py::test_x[1]"])
    assert not is_listed("tests/test_a.py::test_xy", ["tests/test_a.py::test_x"])


def test_what_is_named_exists() -> None:
    """Every name is that of a test, and has a reason."""
    for entry in tomllib.loads(FILE.read_text())["skip"]:
        path, _, test = entry["test"].partition("::")
        assert entry["reason"]
        tree = ast.parse((ROOT / path).read_text())
        names = [
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        assert not test or test.partition("[")[0] in names, entry["test"]
