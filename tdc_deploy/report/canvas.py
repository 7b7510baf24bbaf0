"""matplotlib drawings as SVG that lives in a page: its colours, its fonts, no identifier twice."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from tdc_deploy.report.markup import Html, clean, tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# matplotlib wants colours: each of these stands for a colour of the page, which is another in the dark.
INK, MUTED, LINE, BEFORE, AFTER, LOSS, TRIAL, LIMIT, CARD = (
    f"#0102{number:02x}" for number in range(9)
)
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", LINE: "--line", BEFORE: "--before", AFTER: "--after",
    LOSS: "--loss", TRIAL: "--trial", LIMIT: "--limit", CARD: "--card",
}  # fmt: skip

_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tdc-deploy",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,
}

Size = tuple[float, float]
"""Width and height in points."""

Draw = Callable[["Figure"], Mapping[str, str]]
"""Draws into a figure; returns the tooltip of each artist that was given a gid."""


def drawing(draw: Draw, name: str, size: Size, label: str) -> Html:
    """An inline SVG of `size` points. `name` is its own in the page; `label` is read aloud."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    stream = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # Names may hold letters that matplotlib's font lacks; the browser's has them.
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure((size[0] / 72, size[1] / 72), layout=None)
        figure.patch.set_visible(False)
        FigureCanvasSVG(figure)
        tips = draw(figure)
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(stream.getvalue())  # matplotlib's own
    _tidy(root, name, tips)
    # Sized by the page, like its text: one unit of the drawing is one CSS pixel where there is room.
    for fixed in ("width", "height"):
        root.attrib.pop(fixed, None)
    root.attrib |= {"role": "img", "aria-label": clean(label), "class": name.rsplit("-", 1)[-1]}
    root.attrib["style"] = f"max-width:{size[0] * 4 / 3:.0f}px"
    return Html(ElementTree.tostring(root, encoding="unicode", short_empty_elements=False))


def responsive(
    draw_wide: Draw, draw_narrow: Draw, name: str, sizes: Sequence[Size], label: str
) -> Html:
    """The drawing for a desk and for a phone; the page shows one. `sizes`: (width, height) of each."""
    wide, narrow = sizes
    return tag(
        "div",
        drawing(draw_wide, f"{name}-wide", wide, label),
        drawing(draw_narrow, f"{name}-narrow", narrow, label),
        class_=f"drawing {name}",
    )


def _tidy(root: ElementTree.Element, name: str, tips: Mapping[str, str]) -> None:
    """Drop namespaces, metadata and identifiers that nothing refers to; prefix the others with `name`."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}title")):
                parent.remove(child)
    used = set(re.findall(r"#([\w-]+)", ElementTree.tostring(root, encoding="unicode")))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            if key == "id":
                if value in tips:
                    title = ElementTree.Element("title")
                    title.text = clean(tips[value])
                    element.insert(0, title)
                if value not in used:
                    continue
                value = f"{name}-{value}"
            elif key.endswith("href"):
                value = value.replace("#", f"#{name}-", 1)
            value = value.replace("url(#", f"url(#{name}-")
            element.attrib[key.rpartition("}")[2]] = _themed(value)


def _themed(value: str) -> str:
    for colour, variable in _VARIABLES.items():
        value = value.replace(colour, f"var({variable})")
    return value
