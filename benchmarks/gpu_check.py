"""Every legal tactic on the GPU against float64, over a grid of layers, through the C interface.

    python -m benchmarks.gpu_check --out check.json

Prints a table and writes JSON; the exit code is 1 if a result is wrong. A result is right if each element
lies within what rounding can do to it (benchmarks/gpu/problem.py says how that is found). Needs torch, and
a GPU unless --library names a library with emulated kernels, which takes the small layers only.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.gpu.grid import LARGE, SMALL, Check
from benchmarks.gpu.machine import describe, missing, open_library
from tdc_deploy.cli.output import Output
from tdc_deploy.errors import TdcError
from tdc_deploy.files import write_whole
from tdc_deploy.plugin.library import Library
from tdc_deploy.profiling.analytical.tactics import ARITHMETICS
from tdc_deploy.strict_json import dumps


@dataclass(frozen=True)
class Finding:
    """One tactic on one layer; `excess` is its largest error over what is allowed, None if not finite."""

    layer: str
    family: str
    arithmetic: str
    tactic: str
    excess: float | None
    right: bool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--library", type=Path, help="plugin library; default: built for this GPU")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    try:
        sys.exit(run(args.library, args.out))
    except TdcError as error:
        sys.exit(f"error: {error}")


def run(path: Path | None, out: Path | None) -> int:
    """The exit code."""
    library = None if path is None else Library(path)
    emulated = library is not None and library.build_info()["emulated"]
    reason = missing()
    if emulated:
        reason = "no torch" if find_spec("torch") is None else ""
    if reason:
        print(f"{reason}: nothing was checked")
        return 0
    library = library or open_library(None)
    findings = []
    for check in SMALL if emulated else (*SMALL, *LARGE):
        print(check.case.layer.name, file=sys.stderr)
        findings += list(check_layer(library, check, "cpu" if emulated else "cuda"))
    print_findings(findings)
    if out is not None:
        machine = {"emulated": True} if emulated else describe(library)
        write_whole({out: report(machine, findings)})
    return 0 if all(finding.right for finding in findings) else 1


def check_layer(library: Library, check: Check, device: str) -> Iterator[Finding]:
    """All tactics that are legal for the layer."""
    from benchmarks.gpu.ours import OurLayer
    from benchmarks.gpu.problem import make_problem, worst_excess

    for arithmetic in ARITHMETICS:
        problem = make_problem(
            check.case, arithmetic, device=device, slopes=check.slopes, residual=check.residual
        )
        for channel_first in (False, True):
            ours = OurLayer(library, problem, channel_first=channel_first)
            for tactic in ours.tactics():
                excess = worst_excess(problem, ours.output(tactic.number))
                right = excess <= 1 and ours.padding_is_zero()
                name = library.describe(tactic.number)
                layer = check.case.layer.name
                yield Finding(layer, tactic.family, arithmetic, name, excess, right)


def print_findings(findings: list[Finding]) -> None:
    """One row for each family and arithmetic, and one for each wrong result."""
    out = Output(as_json=False, quiet=False)
    groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.family, finding.arithmetic].append(finding)
    rows = [
        (
            *key,
            len({finding.tactic for finding in group}),
            len({finding.layer for finding in group}),
            len(group),
            sum(not finding.right for finding in group),
        )
        for key, group in groups.items()
    ]
    out.table(("family", "arithmetic", "tactics", "layers", "results", "wrong"), rows)
    for finding in findings:
        if not finding.right:
            out.warn(f"{finding.layer}: {finding.tactic}: {finding.excess} of the allowed error")
    wrong = sum(not finding.right for finding in findings)
    out.text(f"{len(findings)} results, {wrong} wrong")


def report(machine: dict[str, Any], findings: list[Finding]) -> bytes:
    """The JSON file."""
    data = {
        "date": date.today().isoformat(),
        "machine": machine,
        "findings": [asdict(finding) for finding in findings],
    }
    return (dumps(data) + "\n").encode()


if __name__ == "__main__":
    main()
