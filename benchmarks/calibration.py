"""What calibration data do for a decomposed network that is not trained again.

    python -m benchmarks.calibration --networks resnet20,vgg16_bn_quarter,digits --seeds 0,1,2

For each network and choice of ranks: plain Tucker, data-aware, data-aware in sequence, each with and
without correction of the channels' mean and variance. Error and accuracy on the test images, which
calibration does not see; a seed draws the calibration images. Times are not measured. Results are added
to the JSON as they are found; about half an hour for all on two cores.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tdc_calibration.calibration import calibrate
from tdc_calibration.sequential import SequentialChoice, sequential_factors

from benchmarks.calibration_networks import NETWORKS, Subject, opened
from benchmarks.calibration_ranks import RANKS, macs_share
from benchmarks.calibration_table import print_table, summary
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.compress import Selection, decompose_layers
from tdc_deploy.cpu import available_cpus, device_name
from tdc_deploy.files import write_whole
from tdc_deploy.graph.network import model_of
from tdc_deploy.repair import Repair
from tdc_deploy.source import Source
from tdc_deploy.tucker import Factors
from tdc_deploy.verify import relative_error, run_all
from tdc_deploy.versions import library_versions

RESULTS = Path(__file__).parent / "results" / "calibration.json"
BACKEND = OnnxRuntimeBackend(1)

Logits = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--ranks", default=",".join(RANKS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    known = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
    for network in chosen.networks.split(","):
        found = known.setdefault(network, {})
        for ranks in chosen.ranks.split(","):
            runs = [run(network, ranks, seed) for seed in seeds]
            found[ranks] = summary(runs) | {"environment": environment()}
            write_whole({chosen.out: (json.dumps(known, indent=1) + "\n").encode()})
            print_table(network, ranks, found[ranks])


def environment() -> dict[str, Any]:
    return {
        "device": device_name(),
        "cpus": available_cpus(),
        "libraries": {"python": platform.python_version(), **library_versions()},
    }


def run(network: str, ranks: str, seed: int) -> dict[str, Any]:
    """One draw of calibration images: every arm's logits on the test images, and what they are told by."""
    subject = opened(NETWORKS[network], seed)
    measured = calibrate(subject.source, subject.reader, ranges=False, threads=1)
    source = subject.source.with_statistics(measured.statistics)
    selection = RANKS[ranks](subject.source, source)
    dense = outputs(subject, source, None, {}, None)
    arms = dict(all_arms(subject, source, selection))
    labels = subject.test.labels
    assert labels is not None
    return {
        "seed": seed,
        "calibration_images": len(subject.reader),
        "macs": macs_share(source, selection),
        "layers": {name: str(candidate) for name, candidate in selection.items()},
        "dense": (dense.argmax(1) == labels),
        "right": {arm: (logits.argmax(1) == labels) for arm, logits in arms.items()},
        "error": {arm: relative_error(dense, logits) for arm, logits in arms.items()},
        "chosen": sequence_is_chosen(subject, source, selection),
    }


def all_arms(subject: Subject, source: Source, selection: Selection) -> Any:
    """(name, logits) of each arm; `+` marks the correction of mean and variance."""
    samples = subject.calibration
    tensors = [source.convs[name].node.outputs[0].name for name in selection]
    repair = Repair(source.network, tensors, samples, BACKEND)
    for mark, corrects in (("", None), ("+", repair)):
        yield "plain" + mark, outputs(subject, subject.source, selection, {}, corrects)
        yield "data-aware" + mark, outputs(subject, source, selection, {}, corrects)
        for arm, target in (("sequential, own kernel", own_kernel), ("sequential", None)):
            factors = sequential_factors(source, selection, samples, corrects, BACKEND, target)
            yield arm + mark, outputs(subject, source, selection, factors, corrects)


def own_kernel(weight: NDArray[np.floating], _: object) -> NDArray[np.float64]:
    """The layer's kernel itself: the sequence without the dense network's output as its target."""
    return np.asarray(weight, np.float64)


def outputs(
    subject: Subject,
    source: Source,
    selection: Selection | None,
    given: dict[str, Factors],
    repair: Repair | None,
) -> Logits:
    """The logits on the test images; of the dense network without a selection."""
    network = decompose_layers(source, selection or {}, repair, refine=True, given=given)
    with BACKEND.runner(model_of(network)) as runner:
        (logits,) = run_all(runner, subject.test).values()
    return logits


def sequence_is_chosen(subject: Subject, source: Source, selection: Selection) -> bool:
    """Whether a build would take the sequence."""
    return bool(SequentialChoice(subject.calibration, BACKEND)(source, selection))


if __name__ == "__main__":
    main()
