"""What a processor is called: by all that tells it from those with other latencies."""

from __future__ import annotations

import pytest

from tdc_deploy import cpu
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend

ZEN3 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC
flags\t\t: fpu sse4_2 avx fma avx2 vaes

processor\t: 1
model\t\t: 7
"""
ZEN4 = ZEN3.replace("model\t\t: 1", "model\t\t: 17").replace("avx2", "avx2 avx512f avx512_vnni")
ARM = """processor\t: 0
Features\t: fp asimd crc32 asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd05

processor\t: 1
CPU implementer\t: 0x41
CPU part\t: 0xd0b

processor\t: 2
CPU implementer\t: 0x41
CPU part\t: 0xd0b

Hardware\t: A chip
Model\t: A board
"""


def test_machines_that_hide_their_names_are_told_apart() -> None:
    assert cpu.describe(ZEN3) == "AMD EPYC (family 25, model 1, avx, avx2)"
    zen4 = "AMD EPYC (family 25, model 17, avx, avx2, avx512f, avx512_vnni)"
    assert cpu.describe(ZEN4) == zen4
    # A virtual machine may keep instructions back.
    assert cpu.describe(ZEN4.replace(" avx512_vnni", "")) != zen4


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (ARM, "A chip (0x41 part 0xd05, 0x41 part 0xd0b, asimd, asimddp)"),
        (
            ARM.replace("Hardware", "Revision").replace("0xd0b", "0xd05"),
            "CPU (0x41 part 0xd05, asimd, asimddp)",
        ),
        ("model name : Some CPU\n", "Some CPU"),
        ("nothing that is known\n", ""),
        ("", ""),
    ],
)
def test_what_is_not_told_is_left_out(text: str, name: str) -> None:
    assert cpu.describe(text) == name


def test_flags_are_of_either_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, wanted in ((ZEN3, {"avx2", "vaes"}), (ARM, {"asimddp"}), ("", set())):
        monkeypatch.setattr(cpu, "_cpuinfo", lambda text=text: text)
        assert wanted <= cpu.flags() and bool(cpu.flags()) == bool(wanted)


def test_measurements_are_kept_by_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for text in (ZEN3, ZEN4):
        monkeypatch.setattr(cpu, "_cpuinfo", lambda text=text: text)
        found.append(OnnxRuntimeBackend(1).describe())
    assert found[0] != found[1]
    assert found[0] | {"device": ""} == found[1] | {"device": ""}


def test_a_machine_without_cpuinfo_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_cpuinfo", lambda: "")
    monkeypatch.setattr("platform.processor", lambda: "arm")
    assert cpu.device_name() == "arm"
