from __future__ import annotations

import gc
import signal
from collections.abc import Iterator

import pytest

CACHE_VARIABLE = "TDC_DEPLOY_CACHE"


@pytest.fixture(scope="session", autouse=True)
def _session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No fixture of a wider scope than a test's touches the user's measurements either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("session-cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _frozen_modules() -> None:
    """Keep the imported modules out of the library's own collections of garbage."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """Shells start background jobs with SIGINT ignored, and every child would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_cache(
    _session_cache: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every test starts with no measurements, outside its own tmp_path."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
