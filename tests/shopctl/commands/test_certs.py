"""`shopctl certs`: what each command does to the files, and what it says."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shopctl.errors import ExitCode
from tests.support.mesh_process import SHOPCTL


def certs(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*SHOPCTL, "certs", *arguments, "--home", str(home)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def shown(home: Path) -> dict[str, Any]:
    lines = map(json.loads, certs(home, "show", "--json").stdout.splitlines())
    return {line["name"]: line for line in lines}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("certs") / "home"
    assert certs(home, "init", "--life", "2h").stdout.startswith("made orders, payments")
    return home


def test_show_fits_into_80_columns_and_json_has_all_of_it(home: Path) -> None:
    """One row a certificate; JSON has times as numbers and the whole identity."""
    lines = certs(home, "show").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    [row] = [line for line in lines if line.startswith("orders ")]
    assert re.search(r"^orders +valid +1h5\dm  20..-..-.. ..:..  [0-9a-f]{16}  inter", row)
    orders = shown(home)["orders"]
    assert orders["spiffe_id"] == "spiffe://shop.internal/orders"
    assert 7000 < orders["left"] <= 7200
    assert shown(home)["root"]["issuer"].startswith("root ")


def test_each_kind_is_rotated_and_a_second_init_changes_nothing(home: Path) -> None:
    """`rotate` replaces what it names; the root's roll-over leaves both trusted."""
    first = shown(home)
    assert certs(home, "init").stdout == "everything is there\n"
    assert certs(home, "rotate", "leaf", "orders").stdout == "replaced orders\n"
    second = shown(home)
    changed = {name for name in first if first[name]["serial"] != second[name]["serial"]}
    assert changed == {"orders"}
    certs(home, "rotate", "intermediate")
    third = shown(home)
    assert all(second[n]["serial"] != third[n]["serial"] for n in ("intermediate", "payments"))
    assert certs(home, "rotate", "root").returncode == ExitCode.OK
    assert certs(home, "show").stdout.count("\nroot ") == 2
    assert shown(home)["intermediate"]["issuer"].startswith("root ")
    assert shown(home)["intermediate"]["serial"] != third["intermediate"]["serial"]


def test_a_service_of_ones_own_gets_a_certificate_and_loses_it(home: Path) -> None:
    """`issue` prints the folder; `revoke` by name is seen in `show`."""
    folder = Path(certs(home, "issue", "mailer", "--life", "6s").stdout.strip())
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".."))
    assert names == ["ca.crt", "tls.crt", "tls.key"]
    assert re.fullmatch(r"revoked [0-9a-f]{16}\n", certs(home, "revoke", "mailer").stdout)
    assert shown(home)["mailer"]["state"] == "revoked"


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["rotate", "leaf", "nobody"], "nobody has no certificate", ExitCode.FAILED),
        (["rotate", "root", "orders"], "leave the names out", ExitCode.FAILED),
        (["rotate", "orders"], "'orders' is not one of", ExitCode.USAGE),
        (["issue", "Not_a_name"], "no name of a service", ExitCode.USAGE),
        (["issue", "x", "--life", "99d"], "9 days, 8:00:00 at most", ExitCode.USAGE),
        (["revoke", "nobody"], "no valid certificate has the name", ExitCode.USAGE),
    ],
)
def test_what_cannot_be_is_one_line(
    home: Path, arguments: list[str], says: str, code: ExitCode
) -> None:
    """Nothing is written, and the line says what is wrong."""
    done = certs(home, *arguments)
    assert says in done.stderr
    assert done.returncode == code


def test_without_certificates_it_says_how_to_make_some(tmp_path: Path) -> None:
    """Nothing is made by a command that only looks."""
    done = certs(tmp_path, "show")
    assert "make them: shopctl certs init" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_certificates_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    """A folder of cert-manager's is no place for our authority."""
    folder = tmp_path / "certs" / "orders"
    folder.mkdir(parents=True)
    (folder / "tls.crt").write_text("x")
    assert "are not ours" in certs(tmp_path, "init").stderr
    assert [path.name for path in (tmp_path / "certs").iterdir()] == ["orders"]
