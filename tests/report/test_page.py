"""The page by itself: what it says, that nothing gets out of its text, that nothing comes from outside."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdc_deploy.report.markup import clean, shortened, tag
from tdc_deploy.report.page import render
from tests.helpers import fixed
from tests.report.parsed import parse
from tests.report.reports import NEEDS_MATPLOTLIB, OUTCOME, report

pytestmark = NEEDS_MATPLOTLIB

MAX_BYTES = 2_000_000

HOSTILE = "<script>alert(1)</script>\"'&$x_1$</svg></title>{0}{1}"

# All elements that the page and matplotlib's drawings are made of; none of them loads or runs.
KNOWN = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "section", "footer", "div"),
    *("h1", "h2", "h3", "p", "span", "strong", "b", "br", "small", "ul", "li", "dl", "dt", "dd"),
    *("figure", "table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("svg", "g", "path", "text", "tspan", "defs", "clippath", "rect", "use"),
}  # fmt: skip


@pytest.fixture(scope="module")
def page() -> str:
    """The page with everything on it."""
    return render(report())


def test_the_headline_and_the_figures_are_there(page: str) -> None:
    text = parse(page).text
    for said in (
        "resnet.onnx", "fast.onnx", "1.92×", "61.2 ms", "31.9 ms", "0.515 to 0.524",
        "0.507 was predicted", "0.071", "99.2%", "250 MB → 121 MB", "verified on 256 inputs",
        "32 → 48", "it is depthwise", "a processor", "Time against error", "Predicted against measured",
    ):  # fmt: skip
        assert said in text, said


def test_arithmetic_and_parameters_are_sums_over_the_layers() -> None:
    text = parse(render(report(1))).text
    # One layer of 128 channels, 3x3, on 14x14; then 128·32 + 9·32·48 + 48·128 parameters.
    after = 128 * 32 + 9 * 32 * 48 + 48 * 128
    assert f"{128 * 128 * 9 / 1e3:.3g}k → {after / 1e3:.3g}k" in text
    assert f"{128 * 128 * 9 * 196 / 1e6:.3g}M → {after * 196 / 1e6:.3g}M MACs" in text


def test_unverified_and_warnings_are_said() -> None:
    outcome = replace(OUTCOME, verified=False, warnings=("the budget was <not> met",))
    text = parse(render(replace(report(), outcome=outcome))).text
    assert "UNVERIFIED" in text
    assert "the budget was <not> met" in text


def test_a_refused_network_is_not_praised() -> None:
    outcome = replace(OUTCOME, decision="source", reason="the error is above the limit")
    text = parse(render(replace(report(), outcome=outcome))).text
    assert "Unchanged" in text
    assert "the error is above the limit" in text
    assert "refused" in text
    assert "× faster" not in text


def test_names_cannot_break_out_of_their_text() -> None:
    made = replace(report(5, HOSTILE), source=HOSTILE, environment={HOSTILE: HOSTILE})
    parsed = parse(render(made))
    assert parsed.names() <= KNOWN
    assert not [key for e in parsed.elements for key in e.attributes if key.startswith("on")]
    assert HOSTILE.format(0, 0) in parsed.text


def test_a_name_is_no_formula() -> None:
    parsed = parse(render(report(1, r"$\frac{{a}}{{b}}$")))
    # In the chart for a desk, in that for a phone, in the table.
    assert parsed.texts.count(r"$\frac{a}{b}$") == 3


@pytest.mark.parametrize(
    "name", ["\x00\x1b[31m", "\u202egnp.exe", "层/卷积🦊", "\ud800", "]]>--", ""]
)
def test_any_name_is_drawn(name: str) -> None:
    page = render(report(2, name + "{0}{1}"))
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page)
    assert parse(page.encode().decode()).names() <= KNOWN


@given(st.text(), st.text())
@fixed(200)
def test_text_comes_out_as_it_went_in(text: str, attribute: str) -> None:
    parsed = parse(tag("p", text, title=attribute))
    assert "".join(parsed.texts) == clean(text)
    assert parsed.elements[0].attributes == {"title": clean(attribute)}


def test_nothing_comes_from_outside(page: str) -> None:
    parsed = parse(page)
    policies = [e.attributes["content"] for e in parsed.elements if "http-equiv" in e.attributes]
    assert policies[0].startswith("default-src 'none'")
    assert not re.search(r"https?:|//[a-z]|@import|\bsrc=", page)
    links = [e.attributes["href"] for e in parsed.elements if "href" in e.attributes]
    assert links
    assert all(link.startswith("#") for link in [*links, *re.findall(r"url\(([^)]*)", page)])


def test_references_within_the_page_lead_to_one_element_each(page: str) -> None:
    parsed = parse(page)
    found = [e.attributes["id"] for e in parsed.elements if "id" in e.attributes]
    assert len(found) == len(set(found))
    links = {e.attributes["href"][1:] for e in parsed.elements if "href" in e.attributes}
    assert links <= set(found)


def test_drawings_are_read_aloud_and_their_text_can_be_selected(page: str) -> None:
    parsed = parse(page)
    drawings = [e.attributes for e in parsed.elements if e.name == "svg"]
    assert len(drawings) == 6  # three charts, each for a desk and for a phone
    assert all(d["role"] == "img" and len(d["aria-label"]) > 20 for d in drawings)
    assert sum(e.name == "text" for e in parsed.elements) > 50
    assert sum(e.name == "title" for e in parsed.elements) > 10


def test_the_page_fits_small_screens_and_both_schemes(page: str) -> None:
    metas = [e.attributes for e in parse(page).elements if e.name == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    # Every colour of a drawing follows the scheme.
    assert not re.search(r"(fill|stroke): #", page)


def test_two_hundred_layers_fit() -> None:
    page = render(report(200))
    assert len(page.encode()) < MAX_BYTES
    assert 'class="tall"' in page
    assert "/layer66/conv199/Conv" in parse(page).text


@pytest.mark.parametrize("length", [3, 10, 24])
def test_shortened_names_keep_their_end(length: int) -> None:
    name = "/layer1/layer1.0/conv1/Conv"
    short = shortened(name, length)
    assert len(short) <= length
    assert name.endswith(short.split("…")[-1])
    assert shortened("conv1", 24) == "conv1"
