"""Published pages have the numbers and the structure that follow from their rows."""

import re
from pathlib import Path

import numpy as np
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
    name = page.stem
    details = page.with_name(f"{name}_details.md")
    made = results.summarize(run, figures=name, details=details.name)
    assert structure(made) == structure(page.read_text("utf-8"))
    made = results.detail(run, name)
    assert structure(made) == structure(details.read_text("utf-8"))


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


def test_the_readmes_numbers_are_the_pages():
    readme = (RESULTS.parents[1] / "README.md").read_text("utf-8")
    page = (RESULTS / "cifar10_w64_details.md").read_text("utf-8")
    full, *lines = (
        list(line.values()) for line in read_table(readme.split("## Results\n", 1)[1])
    )
    assert len(lines) >= 4
    baselines = [li for li in read_table(page) if li["mode"] == "baseline"]
    mean = np.mean([float(line["accuracy %"]) for line in baselines])
    assert full[1].startswith(f"{mean:.1f}")
    measured = [
        line
        for part in page.split("\n### ")
        if re.search(r"\| +operations %", part)
        for line in read_table(part)
    ]
    for name, accuracy, emd, above, operations in lines:
        wanted = {"EMD": emd, "above margin": above, "operations %": operations}
        found = [
            line
            for line in measured
            if all(line[k].partition(" ")[0] == v for k, v in wanted.items())
            and f"{float(line['accuracy %']):.1f}" == accuracy.partition(" ")[0]
        ]
        assert found, name
        assert all(line["seed"] == "0, 1" for line in found)
