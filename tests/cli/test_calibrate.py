from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tdc_calibration import read_calibration

from tdc_deploy.source import read_source
from tests.calibration.test_calibrate import images, network, save
from tests.cli.conftest import Run

MODEL, DATA, STATS = "model.onnx", "data.npz", "out.tdcstats"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save(network(), tmp_path / MODEL)
    np.savez(tmp_path / DATA, x=images(), labels=np.arange(10))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_statistics_are_written(run: Run, folder: Path) -> None:
    done = run("calibrate", MODEL, "--calib", DATA, "-o", STATS, "--threads", 1)
    assert done.code == 0, done.err
    found = read_calibration(folder / STATS, read_source(folder / MODEL))
    assert found.samples == 10
    assert done.out.startswith(f"{STATS}: 10 samples, 5 layers, 5 ranges, accuracy ")
    quiet = run("calibrate", MODEL, "--calib", DATA, "-o", STATS, "--quiet")
    assert (quiet.out, quiet.err) == ("", "")
    as_json = run("calibrate", MODEL, "--calib", DATA, "-o", STATS, "--samples", 4, "--json").json
    assert as_json["samples"] == 4
    assert as_json["moments"] == {"first": 27, "down": 54, "short": 6, "also": 6, "last": 120}
    assert as_json["skipped"] == {"grouped": "it is grouped"}
    assert set(as_json["ranges"]) == {"x", "r1.out", "r2.out", "r3.out", "flat.out"}
    told = run("calibrate", MODEL, "--calib", DATA, "-o", STATS, "--verbose")
    assert "none: it is grouped" in told.out
    assert "measuring" in told.err


def test_images_as_the_flags_say(run: Run, folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (folder / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), np.uint8)
    for number, of in enumerate(pixels):
        image.fromarray(of).save(folder / "images" / f"{number}.png")
    (folder / "labels.csv").write_text("file,label\n0.png,1\n1.png,2\n2.png,3\n")
    flags = ["--resize", "20x30", "--crop", "12x10", "--pixel-range", 255, "--colors", "bgr"]
    flags += ["--mean", "10,20,30", "--std", "2", "--labels", "labels.csv"]
    done = run("calibrate", MODEL, "--calib", "images", "-o", STATS, *flags, "--json")
    assert done.code == 0, done.err
    seen = (pixels[:, 4:16, 10:20, ::-1].astype(np.float64) - [10, 20, 30]) / 2
    found = read_calibration(folder / STATS).ranges["x"]
    np.testing.assert_allclose(found.lowest, seen.min((0, 1, 2)))
    np.testing.assert_allclose(found.highest, seen.max((0, 1, 2)))
    assert done.json["accuracy"] is not None
    preset = run("calibrate", MODEL, "--calib", "images", "-o", STATS, "--preset", "imagenet")
    assert preset.code == 0, preset.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset", "imagent"], "did you mean 'imagenet'"),
        (["--preset", "imagenet"], "arrays are fed as they are"),
        (["--resize", "256,256"], "--resize is '256,256'"),
        (["--crop", "1x2x3"], "--crop is '1x2x3'"),
        (["--mean", "a"], "--mean is 'a'"),
        (["--samples", "0"], "0 samples"),
        (["--labels", "nothing.csv"], "labels nothing.csv cannot be read"),
    ],
)
def test_mistakes(run: Run, folder: Path, flags: list[str], message: str) -> None:
    done = run("calibrate", MODEL, "--calib", DATA, "-o", STATS, *flags)
    assert done.code == 2
    assert message in done.err
    assert not (folder / STATS).exists()


def test_one_sample_is_warned_of(run: Run, folder: Path) -> None:
    assert folder.exists()
    done = run("calibrate", MODEL, "--calib", DATA, "-o", STATS, "--samples", 1)
    assert done.code == 0
    assert "warning: data.npz holds one sample" in done.err
