"""Published pages have the numbers and the structure that follow from their rows."""

import re
from pathlib import Path

import pytest
from planted import read_table

from experiments import report
from experiments.report import results

RESULTS = Path(__file__).parents[3] / "docs" / "results"
PAGES = [
    page
    for page in sorted(RESULTS.glob("*.md"))
    if (RESULTS / page.stem / "results.jsonl").exists()
]


@pytest.mark.skipif(not PAGES, reason="no results page is published yet")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_follows_from_its_rows(page):
    run = report.load(RESULTS / page.stem)
    made, published = results.markdown(run, figures=page.stem), page.read_text("utf-8")
    assert structure(made) == structure(published)


def structure(text):
    """Headings, table cells and links of a page, and the numbers of its prose."""
    lines = text.splitlines()
    kept = [line for line in lines if line.startswith(("#", "|", "!["))]
    prose = "\n".join(line for line in lines if line not in kept)
    return kept, re.findall(r"\d+(?:[.,]\d+)*", prose)


@pytest.mark.skipif(not PAGES, reason="no results page is published yet")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_figures_are_there(page):
    text = page.read_text("utf-8")
    lines = [line for line in text.splitlines() if line[:2] == "!["]
    links = [line.partition("](")[2].rstrip(")") for line in lines]
    assert bool(links) != ("No quantized network is finished yet" in text)
    assert all((RESULTS / link).exists() for link in links)


def cells(text, heading):
    """The head and the lines of the first table behind a heading, without marks."""
    lines = read_table(re.sub(r" \\\*|\*", "", text.split(f"{heading}\n", 1)[1]))
    return [list(lines[0]), *(list(line.values()) for line in lines)]


def test_the_readmes_tables_are_the_pages():
    readme = (RESULTS.parents[1] / "README.md").read_text("utf-8")
    page = (RESULTS / "cifar10.md").read_text("utf-8")
    shown = cells(readme, "## What came out on CIFAR-10")
    # Settings of several seeds have columns of their own behind these.
    assert shown == [line[:5] for line in cells(page, "### PTQ+BN")]
    assert len(shown) == 1 + 8
    [qat] = [line for line in readme.splitlines() if "training (QAT" in line]
    trained = cells(readme, qat)
    # The page names the seeds of both columns.
    assert [line[:2] for line in trained] == [
        line[:2] for line in cells(page, "### QAT")
    ]
    assert [line[2].split(",")[0] for line in cells(page, "### QAT")] == [
        line[2] for line in trained
    ]
