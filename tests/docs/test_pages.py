"""All pages for users of the library: links, anchors and figures."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

README = ROOT / "interceptors" / "README.md"
PAGES = [README, ROOT / "runtime" / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]


def anchor(title: str) -> str:
    """What GitHub calls a heading."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link leads to a file, and every anchor to a heading of it."""
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        file = (page.parent / target) if target else page
        assert file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert heading in map(anchor, titles), f"{target}#{heading}"


def test_figures_are_those_of_the_benchmarks() -> None:
    """No figure stands in the README that the benchmarks' own page does not have."""
    measured = (ROOT / "benchmarks" / "README.md").read_text()
    shown = README.read_text().split("<!-- figures -->")[1]
    figures = re.findall(r"^\|.*\| ([\d.]+(?: ms| %)?) \|$", shown, re.MULTILINE)
    assert figures
    for figure in figures:
        assert figure in measured, figure
