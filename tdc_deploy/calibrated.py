"""Builds with calibration data: the source that is decomposed for them, and which samples do what."""

from __future__ import annotations

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import InSequence
from tdc_deploy.request import Request, samples_of
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source

Opened = tuple[Source, Samples, InSequence | None]


def with_data(source: Source, request: Request) -> Opened:
    """The source as its data decompose it, the samples, and what decomposes layer behind layer; what
    measuring warns of is added to the request's notes.

    Raises:
        TdcError: the data do not fit the model, or would both calibrate and verify.
    """
    calibration, inputs = request.calibration, request.inputs
    if calibration is None:
        return source, samples_of(source, inputs), None
    from tdc_calibration.stage import calibrated

    path = calibration.path
    if inputs is not None and path is not None and inputs.resolve() == path.resolve():
        raise TdcError(
            f"{inputs} both to calibrate and to verify on",
            expected="samples to verify on that calibration does not see",
            fix="leave --inputs out: every other sample of --calib then verifies",
        )
    samples = None if inputs is None else samples_of(source, inputs)
    backend = OnnxRuntimeBackend(request.threads)
    found = calibrated(source, calibration, samples, backend, request.progress)
    request.notes.extend(found.warnings)
    return found.source, found.samples, found.in_sequence
