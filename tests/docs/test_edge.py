"""The lines of the page about the edge, pasted beside a shop with certificates."""

import re
from collections.abc import Iterator

import pytest

from services import bearer_tokens
from services.edge import settings
from tests.docs.pages import ROOT, blocks, paste, section
from tests.support.mesh_process import MeshProcess, running_mesh
from tests.support.ports import free_offset

PAGE = section((ROOT / "docs" / "edge.md").read_text(), "The shop's edge")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshProcess]:
    """The shop, as `make up` starts it, on other ports."""
    home = tmp_path_factory.mktemp("edge-page") / "mesh"
    with running_mesh(home, free_offset(), left_out=(), environment={"MESH_INSECURE": ""}) as mesh:
        yield mesh


def test_the_lines_for_curl(mesh: MeshProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pasted they create a customer, place an order, watch it, list it, and are refused."""
    monkeypatch.delenv("MESH_INSECURE")
    (script,) = blocks(PAGE, "sh")
    printed = paste(script, mesh)
    updates = re.findall(r"^id: (\d+)$", printed, re.MULTILINE)
    assert updates == list("123456"), printed
    assert "ORDER_STATUS_CONFIRMED" in printed
    assert re.search(r'"nextPageToken": *""', printed), printed
    assert re.search(r'"reason": *"ORDER_ENDED"', printed), printed


def test_every_variable_is_listed() -> None:
    """The table has what the settings read, with their defaults."""
    rows = dict(re.findall(r"^\| `(MESH_EDGE_\w+)` \| ?`?([^|`]*)`? ?\|", PAGE, re.MULTILINE))
    known = [*vars(bearer_tokens).values(), *vars(settings).values()]
    found = [each for each in known if isinstance(each, bearer_tokens.Setting)]
    usual = {each.variable: each.usual for each in found}
    assert rows == {**usual, "MESH_EDGE_JWKS": "<home>/edge/jwks.json"}
