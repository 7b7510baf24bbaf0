"""tdc-deploy's commands in processes of their own, with their time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

# A process starts with the peak memory of the one that forked it, and this one has torch loaded: a
# small launcher in between lets the child's own peak show.
LAUNCHER = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
if done.returncode:
    sys.exit(done.returncode)
print(json.dumps({"output": json.loads(done.stdout), "seconds": seconds, "peak_kib": peak}))
"""


def command(arguments: list[Any]) -> dict[str, Any]:
    """Run tdc-deploy; its JSON output, its wall time in seconds and its peak memory in KiB."""
    words = ["-m", "tdc_deploy.cli.main", *map(str, arguments)]
    launched = [sys.executable, "-c", LAUNCHER, sys.executable, *words]
    done = subprocess.run(launched, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measured(run: dict[str, Any]) -> dict[str, float]:
    """Its time and memory, for a table."""
    return {"seconds": round(run["seconds"], 1), "peak_mb": round(run["peak_kib"] * 1024 / 1e6)}
