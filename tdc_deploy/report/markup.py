"""HTML that cannot be broken by what is put into it: all text is escaped unless it is markup already."""

from __future__ import annotations

from html import escape

VOID = ("meta", "br", "link")


class Html(str):
    """Text that is markup."""

    __slots__ = ()


def tag(name: str, /, *content: str, **attributes: str) -> Html:
    """An element. Attributes are spelled `class_`, `aria_label`; their values are escaped too."""
    words = [
        f'{key.rstrip("_").replace("_", "-")}="{escape(clean(value))}"'
        for key, value in attributes.items()
    ]
    opening = " ".join([name, *words])
    if name in VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{join(*content)}</{name}>")


def join(*content: str) -> Html:
    """Markup and text, one after the other."""
    return Html(
        "".join(part if isinstance(part, Html) else escape(clean(part)) for part in content)
    )


def clean(text: str) -> str:
    """Text without what browsers and XML refuse or hide: control characters, changes of direction."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def shortened(text: str, length: int) -> str:
    """At most `length` characters, the middle left out: layers' names differ at their ends."""
    if len(text) <= length:
        return text
    head = (length - 1) // 3
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
