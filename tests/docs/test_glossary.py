"""`docs/glossary.md`: the one place where words are explained."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

GLOSSARY = ROOT / "docs" / "glossary.md"
SECTIONS = re.split(r"^## ", GLOSSARY.read_text(), flags=re.MULTILINE)[1:]
WORDS = [re.findall(r"^\| ([^|]+) \| (?!means)", text, re.MULTILINE) for text in SECTIONS]
EXPLAINED = {
    "contract-checks.md",
    "contract-rules.md",
    "exports.md",
    "first-contract.md",
    "new-policy.md",
    "new-rule.md",
}
"""Pages that a reader follows step by step, or that are made: they explain what they need."""


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words[1])
def test_words_are_found_by_the_alphabet(words: list[str]) -> None:
    """Whoever looks a word up finds it where it has to be, and once."""
    assert words == sorted(words, key=lambda word: word.removeprefix("to "))
    assert sum(map(len, WORDS)) == len({word for each in WORDS for word in each})


def test_words_are_used() -> None:
    """No word is explained that no other page, contract or help has."""
    sources = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("protos/**/*.proto")]
    sources += [*ROOT.glob("shopctl/**/*.py"), *ROOT.glob("interceptors/accord/**/*.py")]
    text = " ".join(file.read_text().lower() for file in sources if file != GLOSSARY)
    for word in (word for each in WORDS for word in each):
        for one in word.removeprefix("to ").split(", "):
            assert re.search(rf"\b{one.rstrip('e')}", text), word


@pytest.mark.parametrize(
    "page", sorted({*ROOT.glob("docs/*.md"), ROOT / "docs" / "policies" / "README.md"}), ids=str
)
def test_pages_lead_to_it(page: Path) -> None:
    """A newcomer to any page is led to the words, before the first heading below the title."""
    if page == GLOSSARY or page.name in EXPLAINED:
        return
    assert "glossary.md)" in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[0]
