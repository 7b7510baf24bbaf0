"""What `--help` shows of every command of both command lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from tdc_train.cli.main import app as train
from typer.testing import CliRunner

from tdc_deploy.cli.main import app as deploy

# Wide enough that no text is wrapped.
WIDE = {"COLUMNS": "1000", "TERMINAL_WIDTH": "1000"}


def commands(app: typer.Typer, name: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""

    def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield words, command
        for key, inner in getattr(command, "commands", {}).items():
            yield from below(inner, (*words, key))

    yield from below(typer.main.get_command(app), (name,))


ALL = [
    pytest.param(app, words[1:], command, id=" ".join(words))
    for app, name in ((deploy, "tdc-deploy"), (train, "tdc-train"))
    for words, command in commands(app, name)
]


@pytest.mark.parametrize(("app", "words", "command"), ALL)
def test_nothing_of_a_help_text_is_swallowed(
    app: typer.Typer, words: tuple[str, ...], command: Any
) -> None:
    """A word in brackets may be taken for markup, and be gone."""
    shown = CliRunner().invoke(app, [*words, "--help"], env=WIDE)
    assert shown.exit_code == 0
    said = " ".join(shown.output.split())
    texts = [command.help, *(getattr(option, "help", None) for option in command.params)]
    for text in filter(None, texts):
        assert " ".join(text.split()) in said
