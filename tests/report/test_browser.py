"""The page in a real browser."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tdc_deploy.report.page import render
from tests.report.browser import BROWSER, NAMES, Page, browser
from tests.report.reports import OUTCOME, report

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(NAMES)} on the PATH")

imread = pytest.importorskip("matplotlib.image", reason="the extra [report]").imread

PHONE, DESK = 390, 1280

LONG = "a_layer_whose_name_is_long_enough_to_break_the_page_/" * 3 + "{0}{1}"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    outcome = replace(OUTCOME, warnings=("w" * 300,))
    made = replace(report(45, LONG), outcome=outcome, environment={"device": "d" * 120})
    path.write_text(render(made), encoding="utf-8")
    return path


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path / "profile") as opened:
        yield opened


@pytest.mark.parametrize(("width", "shown"), [(PHONE, "narrow"), (DESK, "wide")])
def test_the_page_scrolls_down_only(page: Page, file: Path, width: int, shown: str) -> None:
    page.open(file, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drawn = "[...document.querySelectorAll('svg')].filter(s => s.clientWidth > 0)"
    assert page.evaluate(f"{drawn}.map(s => s.classList[0])") == [shown] * 3
    # No drawing is shrunk until its text is too small to read.
    assert page.evaluate(f"Math.min(...{drawn}.map(s => s.getScreenCTM().a))") >= 1.2


def test_nothing_is_requested_and_nothing_runs(page: Page, tmp_path: Path) -> None:
    bad = "</text></svg><script>document.title='run'</script><img src=//example.com/x.png>{0}{1}"
    path = tmp_path / "hostile.html"
    path.write_text(render(report(6, bad)), encoding="utf-8")
    page.open(path, DESK)
    assert page.evaluate("document.title") == "fast.onnx – tdc-deploy report"
    assert page.evaluate("document.images.length + document.scripts.length") == 0
    assert page.requested == [path.resolve().as_uri()]


@pytest.mark.parametrize("dark", [False, True])
def test_the_picture_is_not_blank(page: Page, file: Path, dark: bool) -> None:
    page.open(file, DESK, dark=dark)
    picture = imread(io.BytesIO(page.screenshot(whole=False)))[:, :, :3]
    assert picture.shape[:2] == (900, DESK)
    assert len(np.unique((picture * 15).round().astype(int).reshape(-1, 3), axis=0)) > 20
    background = np.median(picture.reshape(-1, 3), axis=0)
    assert (background.mean() < 0.3) == dark


def test_the_drawings_text_has_a_colour_that_shows(page: Page, file: Path) -> None:
    page.open(file, DESK, dark=True)
    colours = page.evaluate(
        "[...document.querySelectorAll('svg.wide text')].map(t => getComputedStyle(t).fill)"
    )
    assert len(colours) > 100
    # Light on dark: no letter is black.
    assert min(sum(map(int, c[4:-1].split(","))) for c in set(colours)) > 300
