"""A headless Chromium, driven over the DevTools protocol through pipes; needs no package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)

# Enough for the slowest machine; an answer takes milliseconds.
PATIENCE_S = 60


LOADED = "new Promise(done => document.readyState == 'complete' ? done(1) : addEventListener('load', done))"


@dataclass
class Page:
    """One open page; `requested` are the addresses that it asked for."""

    process: subprocess.Popen[bytes]
    commands: int
    answers: int
    session: str = ""
    requested: list[str] = field(default_factory=list)
    _buffer: bytes = b""
    _count: int = 0

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and wait for its answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, path: Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a file at a width in CSS pixels."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Network.enable")
        self.call("Page.enable")
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.evaluate(LOADED)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        return done["result"].get("value")

    def screenshot(self, whole: bool = True) -> bytes:
        """The page as a PNG, whole or what is visible."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self.answers], [], [], PATIENCE_S)
            assert ready, f"the browser says nothing for {PATIENCE_S} s"
            read = os.read(self.answers, 1 << 20)
            assert read, "the browser has ended"
            self._buffer += read
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if message.get("method") == "Network.requestWillBeSent":
            self.requested.append(message["params"]["request"]["url"])
        return message


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with a profile folder of its own, ended with the block."""
    assert BROWSER is not None
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    words += ["--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={profile}"]
    # The browser reads commands from descriptor 3 and answers on 4.
    shell = f'exec "$0" "$@" 3<&{their_in} 4>&{their_out}'
    with subprocess.Popen(
        ["bash", "-c", shell, BROWSER, *words],
        pass_fds=(their_in, their_out),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as process:
        os.close(their_in)
        os.close(their_out)
        try:
            yield Page(process, our_out, our_in)
        finally:
            process.kill()
            os.close(our_out)
            os.close(our_in)
