"""What is kept of a release: all that is needed, and it does not change."""

import shutil
from pathlib import Path

import pytest

from tools import contracts, releases


@pytest.fixture
def copy(last_release: Path, tmp_path: Path) -> Path:
    """A copy of what is kept of the last release; its image beside it."""
    shutil.copy(releases.image_of(last_release), tmp_path)
    return shutil.copytree(last_release, tmp_path / last_release.name)


def test_every_release_is_kept() -> None:
    """Whatever has an image has its code and fixtures as well."""
    images = {image.stem for image in contracts.releases(releases.ROOT).values()}
    assert releases.released().keys() == images


@pytest.mark.parametrize("version", releases.released())
def test_what_is_kept_has_not_changed(version: str) -> None:
    """Image, clients, servers and fixtures of each release have the hashes of its day."""
    assert list(releases.findings(releases.released()[version])) == []


@pytest.mark.parametrize(
    "name",
    ["services.zip", "messages/shop.orders.v1.Order.json", "events/confirmed.json", "image"],
)
def test_a_change_is_found(copy: Path, name: str) -> None:
    """A file that is not what it was is named."""
    file = releases.image_of(copy) if name == "image" else copy / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    (finding,) = releases.findings(copy)
    assert finding.endswith("was changed")
    assert file.name in finding


def test_a_missing_file_is_found(copy: Path) -> None:
    """A file that is gone is named, and so is the image."""
    (copy / "events" / "confirmed.json").unlink()
    releases.image_of(copy).unlink()
    assert [line.rpartition("/")[2] for line in releases.findings(copy)] == [
        f"{copy.name}.binpb is missing",
        "confirmed.json is missing",
    ]


def test_an_added_file_is_found(copy: Path) -> None:
    """What was not released cannot be slipped in."""
    (copy / "messages" / "shop.New.json").write_text("[]\n")
    assert [line.rpartition("/")[2] for line in releases.findings(copy)] == [
        "shop.New.json was added"
    ]


def test_missing_hashes_are_found(copy: Path) -> None:
    """Without its hashes nothing can be said of a release, and that is said."""
    (copy / releases.SUMS).unlink()
    assert [line.rpartition("/")[2] for line in releases.findings(copy)] == [
        f"{releases.SUMS} is missing"
    ]


def test_a_release_is_never_kept_again(copy: Path) -> None:
    """What is kept stays, whatever is asked for."""
    before = (copy / releases.SUMS).read_bytes()
    with pytest.raises(releases.Refused, match="is there already"):
        releases.keep(copy.name, released=copy.parent)
    assert (copy / releases.SUMS).read_bytes() == before


def test_a_release_needs_its_image(tmp_path: Path) -> None:
    """Clients and servers are not kept of contracts that were not released."""
    with pytest.raises(releases.Refused, match="is missing"):
        releases.keep("7.0.0", released=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_release_needs_its_version_in_the_code(last_release: Path, tmp_path: Path) -> None:
    """Wheels of another version are refused, and nothing is left behind."""
    shutil.copy(releases.image_of(last_release), tmp_path / "7.0.0.binpb")
    with pytest.raises(releases.Refused, match=r"pyproject\.toml"):
        releases.keep("7.0.0", released=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["7.0.0.binpb"]
