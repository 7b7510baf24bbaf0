"""Build a TensorRT engine: dense, native chains and fused ones, whole; ship the fastest that is close."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tdc_deploy.artifact import Artifact, Decision
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.backends.tensorrt.api import tensorrt, version_of
from tdc_deploy.backends.tensorrt.compatibility import check_library, least_device, other_gpus
from tdc_deploy.backends.tensorrt.embedded import Embedding
from tdc_deploy.backends.tensorrt.embedded_plugin import register_embedded
from tdc_deploy.backends.tensorrt.engine import Engine, build_engine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.prepare import Prepared, prepare
from tdc_deploy.backends.tensorrt.profiles import Ranges, shape_ranges
from tdc_deploy.backends.tensorrt.runner import EngineRunner
from tdc_deploy.builder import Terms, hold_to
from tdc_deploy.compress import compress
from tdc_deploy.engine_sidecar import write_engine
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import Network
from tdc_deploy.plan_file import Plan, check_layers
from tdc_deploy.planner import with_errors
from tdc_deploy.plugin.locate import find_plugin
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.driver import this_device
from tdc_deploy.profiling.measure import FINAL, compare_fresh
from tdc_deploy.progress import Progress
from tdc_deploy.repair import Repair
from tdc_deploy.runtime.plugin_library import register_plugin
from tdc_deploy.samples import Samples
from tdc_deploy.sidecar import sidecar_path
from tdc_deploy.source import Source
from tdc_deploy.types import Ratio
from tdc_deploy.verify import Comparison, compare_outputs, run_all

SOURCE, NATIVE, FUSED = "source", "native", "fused"


@dataclass(frozen=True, eq=False)
class Built:
    """One form of the network as an engine, its error, and its time against the first form's."""

    form: str
    engine: Engine
    comparison: Comparison
    ratio: Ratio


def make_engine(
    source: Source,
    samples: Samples,
    output: Path,
    plan: Plan | None,
    max_error: float,
    options: EngineOptions,
    terms: Terms,
    progress: Progress,
) -> Artifact:
    """Build every form of the network, verify each against ONNX Runtime, and write the fastest.

    The source's own form (dense, or the native chains that came in) is among them, so that what is
    shipped is not slower than it.

    Raises:
        TdcError: something is missing here, TensorRT refuses the model, no form keeps the error limit,
            or the terms refuse the result. Nothing is written then.
    """
    if plan is not None:
        check_layers(plan, source.plannable)
        plan = with_errors(plan, source)
    trt, device = tensorrt(), this_device()
    major = version_of(trt)[0]
    options.check_version(version_of(trt))
    plugin, embedding = _plugin(trt, device, options, progress)
    ranges = shape_ranges(source.network.graph, options, source.inputs)
    repaired, verified = samples.split()
    repair = None if plan is None else _repair(source, repaired)
    networks = networks_of(source, plan, repair)
    ready, warnings = _prepare_all(networks, ranges, device, options, major, embedding)
    engines = _build_all(ready, ranges, options, progress, warnings)
    built = _measure_all(source, verified, engines, progress, warnings)
    chosen, reason = choose(built, max_error)
    decision = _decision(chosen, built)
    warnings += [*ready[chosen.form].warnings, *slower_than_source(chosen, built)]
    hold_to(terms, warnings, chosen.comparison, decision)
    artifact = Artifact(
        output,
        sidecar_path(output),
        decision,
        reason,
        plan,
        chosen.comparison,
        chosen.ratio,
        tuple(warnings),
    )
    used = plugin if ready[chosen.form].fused else None
    write_engine(artifact, chosen, built, source, ranges, options, device, used)
    return artifact


def networks_of(source: Source, plan: Plan | None, repair: Repair | None) -> dict[str, Network]:
    """The forms to try, by name; the first is the source's own.

    Raises:
        TdcError: there is no plan, and the source is not compressed.
    """
    forms = {SOURCE: source.network}
    if plan is not None:
        native = {name: replace(c, implementation="native") for name, c in plan.selection.items()}
        forms[NATIVE] = compress(source, native, repair, refine=True)
    elif not source.is_compressed:
        raise TdcError(
            f"{source.path} is not compressed, and there is no plan",
            expected="a plan, or a model with Tucker chains: planning on TensorRT is not there yet",
            fix=f"plan on ONNX Runtime: tdc-deploy plan {source.path} -o plan.json --inputs "
            "samples.npz; then build with --plan plan.json",
        )
    forms[FUSED] = compress(source, {} if plan is None else plan.selection, repair, refine=True)
    return forms


def choose(built: Mapping[str, Built], max_error: float) -> tuple[Built, str]:
    """The fastest form within the error limit, and why.

    Raises:
        TdcError: none is within it.
    """
    close = [entry for entry in built.values() if entry.comparison.error <= max_error]
    if not close:
        errors = ", ".join(f"{form} {entry.comparison.error:.4g}" for form, entry in built.items())
        raise TdcError(
            f"no engine keeps the error limit of {max_error:.4g}: {errors}",
            expected="an engine close to the model on ONNX Runtime",
            fix="raise --max-error, or build with --precision fp32",
        )
    own = next(iter(built.values()))
    fastest = min(close, key=lambda entry: entry.ratio.value)
    # Another form must be measurably faster than the source's own.
    if own in close and not fastest.ratio.upper < 1:
        fastest = own
    listing = ", ".join(
        f"{form} {entry.ratio.value:.3f}" + ("" if entry in close else " (over the error limit)")
        for form, entry in built.items()
    )
    return fastest, f"{fastest.form} engine; time against {own.form}: {listing}"


def slower_than_source(chosen: Built, built: Mapping[str, Built]) -> list[str]:
    """A warning if the source's own form, kept out by its error, would have been faster."""
    own = next(iter(built.values()))
    if chosen is own or not chosen.ratio.value > own.ratio.value:
        return []
    return [
        f"the {chosen.form} engine is slower than the model that came in (time {chosen.ratio.value:.3f}): "
        f"the {own.form} engine has an error of {own.comparison.error:.4g}, over the limit; "
        "raise --max-error, or build with a more exact --precision, to have the faster one"
    ]


def _plugin(
    trt: Any, device: Device, options: EngineOptions, progress: Progress
) -> tuple[Path | None, Embedding | None]:
    """Register what runs fused layers: the library, which an engine then needs, or the embedded plugin."""
    level = options.hardware_compatibility
    if options.plugin_mode == "library":
        library = find_plugin(version_of(trt)[0], other_gpus(level))
        check_library(library, device, level)
        register_plugin(trt, library)
        return library, None
    register_embedded(trt)
    return None, Embedding(device, options.precision, least_device(device, level), progress)


def _repair(source: Source, samples: Samples) -> Repair | None:
    if not samples.real or not source.plannable:
        return None
    tensors = [source.convs[name].node.outputs[0].name for name in source.plannable]
    return Repair(source.network, tensors, samples, OnnxRuntimeBackend())


def _prepare_all(
    networks: Mapping[str, Network],
    ranges: Ranges,
    device: Device,
    options: EngineOptions,
    major: int,
    embedding: Embedding | None,
) -> tuple[dict[str, Prepared], list[str]]:
    """Each form for the parser, and warnings: one that the plugin cannot run is left out."""
    shapes = {name: found.opt for name, found in ranges.items()}
    ready, warnings = {}, []
    for form, network in networks.items():
        try:
            ready[form] = prepare(
                *(network, shapes, device, options.precision, major),
                hardware=options.hardware_compatibility,
                io_precision=options.io_precision,
                embedding=embedding,
            )
        except TdcError as error:
            if form != FUSED:
                raise
            warnings.append(f"not fused: {error.received}")
    return ready, warnings


def _build_all(
    ready: Mapping[str, Prepared],
    ranges: Ranges,
    options: EngineOptions,
    progress: Progress,
    warnings: list[str],
) -> dict[str, Engine]:
    """Every engine before any is measured: a build would disturb the measurement."""
    engines: dict[str, Engine] = {}
    for form, prepared in ready.items():
        with _or_left_out(form, first=not engines, warnings=warnings):
            engines[form] = build_engine(prepared, ranges, options, progress)
    return engines


def _measure_all(
    source: Source,
    samples: Samples,
    engines: Mapping[str, Engine],
    progress: Progress,
    warnings: list[str],
) -> dict[str, Built]:
    with OnnxRuntimeBackend().runner(source.path) as runner:
        reference = run_all(runner, samples)
    own = next(iter(engines.values()))
    built: dict[str, Built] = {}
    for done, (form, engine) in enumerate(engines.items()):
        progress("verifying engines", done, len(engines))
        with _or_left_out(form, first=not built, warnings=warnings):
            with EngineRunner(engine, form) as runner:
                comparison = compare_outputs(reference, run_all(runner, samples), samples)
            ratio = compare_fresh(
                lambda: EngineRunner(own, "own"),
                lambda engine=engine: EngineRunner(engine, "other"),  # type: ignore[misc]
                samples.first_batch(),
                FINAL,
            )
            built[form] = Built(form, engine, comparison, ratio)
    return built


@contextmanager
def _or_left_out(form: str, *, first: bool, warnings: list[str]) -> Iterator[None]:
    """A form that cannot be built or run is left out, with a warning; without the first, the source's
    own, there is nothing to compare with.
    """
    try:
        yield
    except (TdcError, RuntimeError) as error:
        if first:
            raise
        reason = error.received if isinstance(error, TdcError) else error
        warnings.append(f"{form} form left out: {reason}")


def _decision(chosen: Built, built: Mapping[str, Built]) -> Decision:
    if chosen.form == SOURCE:
        return "source"
    return "compressed" if NATIVE in built else "fused"
