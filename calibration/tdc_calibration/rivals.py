"""What `build` makes besides float32, for the precision that is asked for."""

from __future__ import annotations

from tdc_calibration.half_build import HalfBuild
from tdc_calibration.int8 import check_quantisable
from tdc_calibration.int8_build import Int8Build
from tdc_calibration.int8_engine_build import EngineQuantiser
from tdc_calibration.options import LowerPrecision
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.builder import Rivals
from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.planner import Goal
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source


def rivals_of(
    lower: LowerPrecision,
    evaluator: Evaluator,
    backend: OnnxRuntimeBackend,
    store: Store,
    goal: Goal,
    progress: Progress,
) -> Rivals:
    """What builds the other precision's forms of the network that `evaluator` measures.

    Raises:
        TdcError: nothing real to calibrate on, or a model that cannot be rewritten.
    """
    calibration = evaluator.repair_samples
    _check_real(lower, calibration)
    if lower.precision == "fp16":
        return HalfBuild(evaluator, calibration, backend, goal, progress)
    check_quantisable(evaluator.source.network)
    return Int8Build(evaluator, calibration, backend, store, goal, lower.chosen, progress)


def engine_quantiser(
    lower: LowerPrecision,
    source: Source,
    samples: Samples,
    goal: Goal,
    backend: OnnxRuntimeBackend,
    progress: Progress,
) -> EngineQuantiser:
    """What makes the Q/DQ form of a TensorRT engine.

    Raises:
        TdcError: nothing real to calibrate on, or a model that cannot be rewritten.
    """
    _check_real(lower, samples)
    check_quantisable(source.network)
    return EngineQuantiser(source, samples, goal, lower.chosen, backend, progress)


def _check_real(lower: LowerPrecision, samples: Samples) -> None:
    if not samples.real:
        raise TdcError(
            f"--precision {lower.precision} without data",
            expected="real samples, which ranges are measured on",
            fix="give --inputs or --calib",
        )
