"""Puts the plugin's sources into the wheel; everything else is in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithSources(build_py):
    """Copies CMakeLists.txt and plugins/, without its tests, to tdc_deploy/plugin/sources."""

    def run(self) -> None:
        """As build_py; an editable installation reads the checkout itself."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "tdc_deploy" / "plugin" / "sources"
        shutil.rmtree(target, ignore_errors=True)
        skipped = shutil.ignore_patterns("tests", "__pycache__", "*.md")
        shutil.copytree(ROOT / "plugins", target / "plugins", ignore=skipped)
        shutil.copy(ROOT / "CMakeLists.txt", target)


setup(cmdclass={"build_py": BuildWithSources})
