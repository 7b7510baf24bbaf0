"""Entry point of `tdc-deploy`."""

from __future__ import annotations

from tdc_deploy.cli import (
    bench,
    build,
    calibrate,
    doctor,
    infer,
    inspect,
    plan,
    plugin,
    tactics,
    triton,
)
from tdc_deploy.console import command_line, run

app = command_line(
    "tdc-deploy",
    "Make a CNN faster: Tucker-2 ranks by measured time, fused, verified, ready to deploy.",
)
app.command("build")(build.build)
app.command("plan")(plan.plan)
app.command("inspect")(inspect.inspect)
app.command("bench")(bench.bench)
app.command("calibrate")(calibrate.calibrate)
app.command("infer")(infer.infer)
app.command("tactics")(tactics.tactics)
app.command("triton")(triton.triton)
app.command("doctor")(doctor.doctor)
app.add_typer(plugin.app, name="plugin")


def main() -> None:
    """Run the command line."""
    run(app)


if __name__ == "__main__":
    main()
