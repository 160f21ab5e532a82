"""The page in a headless Chromium: it draws, sorts, tells, filters and is silent."""

import re
import shutil
import subprocess

import markupsafe
import numpy as np
import pandas as pd
import pytest
from browser import CHROMIUM, open_tab

from snnjax import firing, report
from snnjax.report import charts, page
from snnjax.report.attribution import Attribution, Contribution

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
    # The child runs another program at once.
    pytest.mark.filterwarnings("ignore:os.fork"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SHADES = "[...document.querySelectorAll('.mark-symbol.role-mark path')].map"
SHADES += "(e => getComputedStyle(e).opacity).sort().filter((o, i, a) => o != a[i - 1])"


@pytest.fixture(scope="module")
def tab():
    with open_tab() as tab:
        yield tab


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    rng = np.random.default_rng(0)
    before = {f"sn{i}": rng.binomial(400, 0.1, 50) for i in range(12)}
    now = {name: counts + i for i, (name, counts) in enumerate(before.items())}
    counts = [firing.FiringCounts(side, 800) for side in (before, now)]
    found = firing.report(*counts)
    blamed = Attribution(found, {"conv1": Contribution(found, found)})
    path = tmp_path_factory.mktemp("page") / "card.html"
    report.compare(*counts).to_html(path, attribution=blamed)
    return path


def column(tab, number):
    cells = f"[...document.querySelectorAll('tbody td:nth-child({number})')]"
    return tab.evaluate(f"{cells}.map(e => e.textContent)")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 360])
def test_card_fits_and_is_silent(tab, card, width, dark):
    tab.open(card, width, dark=dark)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    drawn = tab.evaluate("[...document.querySelectorAll('.chart svg')].length")
    assert drawn == 3
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(23, 23, 23)" if dark else "rgb(255, 255, 255)")
    assert tab.messages == []
    assert {url.partition(":")[0] for url in tab.requests} <= {"file", "data"}


def test_table_sorts(tab, card):
    tab.open(card)
    names = column(tab, 1)
    assert names == [f"sn{i}" for i in range(12)]
    tab.point("th button", 3, press=True)  # EMD
    assert column(tab, 1) == names
    tab.point("th button", 3, press=True)
    assert column(tab, 1) == names[::-1]
    tab.point("th button", 0, press=True)
    assert column(tab, 1) == names  # by place, not by letter


def test_pointing_tells(tab, card):
    tab.open(card)
    tab.point("#layers .mark-symbol.role-mark path", 5)
    tab.wait("!!document.querySelector('#vg-tooltip-element.visible')")
    text = tab.evaluate("document.querySelector('#vg-tooltip-element').textContent")
    assert "sn5" in text


def test_it_prints_in_light(tab, card, tmp_path):
    tab.open(card, dark=True, media="print")
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    tab.print(tmp_path / "card.pdf")
    assert (tmp_path / "card.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext here")
def test_printed_tables_repeat_their_headings(tab, tmp_path):
    counts = firing.FiringCounts({f"sn{i}": np.arange(9) for i in range(120)}, 9)
    report.compare(counts, counts).to_html(tmp_path / "card.html")
    tab.open(tmp_path / "card.html")
    tab.print(tmp_path / "card.pdf")
    text = ["pdftotext", "-layout", tmp_path / "card.pdf", "-"]
    text = subprocess.run(text, capture_output=True, text=True, check=True).stdout
    before = [re.split(r"(?m)^sn\d+ +No drift", page) for page in text.split("\f")]
    above = [parts[0] for parts in before if len(parts) > 1]
    assert len(above) > 2
    assert all("KS" in heading for heading in above)


def test_legend_filters(tab, tmp_path):
    frame = pd.DataFrame(
        {
            "name": list("abcd"),
            "group": ["PTQ", "PTQ", "QAT", "QAT"],
            "accuracy": [90.0, 91, 92, 93],
            "emd": [0.1, 0.01, 0.02, 0.2],
            "state": "drift",
        }
    )
    text = page.make(
        title="",
        heading="",
        head=markupsafe.Markup(""),
        sections={"Networks": [page.blocks.figure("scatter", "")]},
        drawn={"scatter": charts.scatter_networks(frame)},
    )
    (tmp_path / "page.html").write_text(text)
    tab.open(tmp_path / "page.html")
    assert tab.evaluate("document.querySelectorAll('.role-legend-symbol').length") == 2
    assert len(tab.evaluate(SHADES)) == 1
    tab.point(".role-legend-symbol path", 1, press=True)
    tab.wait(f"{SHADES}.length == 2")
    tab.point("#scatter .mark-symbol.role-mark path", 2)
    tab.wait("!!document.querySelector('#vg-tooltip-element.visible')")
    text = tab.evaluate("document.querySelector('#vg-tooltip-element').textContent")
    assert "92.00" in text
    assert tab.messages == []
