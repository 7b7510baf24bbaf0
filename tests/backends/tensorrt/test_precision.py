"""Reading the inspector's JSON of every version, and holding it against what was asked for."""

from __future__ import annotations

from typing import get_args

import pytest

from tdc_deploy.backends.tensorrt.inspector import dtype_in, io_names, read_layers
from tdc_deploy.backends.tensorrt.precision import check_precision, check_weight_reformats
from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical.model import PrecisionName
from tests.backends.tensorrt.samples import PLUGIN_INPUTS, engine_text, layer, network

FORMS = ("8", "10", "11")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_layers_are_read_in_every_form(form: str, dtype: str) -> None:
    layers = read_layers(network(dtype, form))
    assert [entry.name for entry in layers if entry.computes] == ["conv1", "conv2.last", "fc"]
    assert [entry.name for entry in layers if entry.is_plugin] == ["conv2.last"]
    assert {t.dtype for t in layers[1].inputs + layers[1].outputs} == {dtype}
    assert {t.dtype for t in layers[0].inputs} == {"float32"}


@pytest.mark.parametrize("form", FORMS)
def test_io_names_are_read_in_every_form(form: str) -> None:
    assert io_names(network("float32", form)) == ("image", "logits")


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("Row major linear FP32", "float32"),
        ("Row major linear FP16 format", "float16"),
        ("Channel major FP16 format where channel % 8 == 0", "float16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Half", "float16"),
        ("Float", "float32"),
        ("BFloat16", "bfloat16"),
        ("BF16", "bfloat16"),
        ("FP8", "float8"),
        ("Int64", "int64"),
        ("Bool", "bool"),
        ("N/A due to dynamic shapes", ""),
    ],
)
def test_types_are_found_in_descriptions(text: str, dtype: str) -> None:
    assert dtype_in(text) == dtype


@pytest.mark.parametrize("text", ["", "[]", "{}", "no JSON"])
def test_another_answer_is_refused(text: str) -> None:
    with pytest.raises(TdcError, match="inspector's answer"):
        read_layers(text)


def test_names_alone_are_not_enough() -> None:
    with pytest.raises(TdcError, match="only the names"):
        read_layers(engine_text(["conv1", "fc"]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("asked", get_args(PrecisionName))
def test_what_was_asked_for_is_accepted(form: str, asked: PrecisionName) -> None:
    dtype = "float16" if asked == "fp16" else "float32"
    tactic = "sm80_xmma_fprop_tf32f32_tf32f32" if asked == "tf32" else "sm80_xmma_fprop_f32f32"
    built = check_precision(read_layers(network(dtype, form, tactic)), asked)
    assert built.name == asked
    assert built.layers == {dtype: 3}


@pytest.mark.parametrize(
    ("asked", "dtype", "tactic"),
    [
        ("fp16", "float32", ""),
        ("fp32", "float16", ""),
        ("tf32", "float16", ""),
        ("fp32", "float32", "sm80_xmma_fprop_tf32f32"),
    ],
)
def test_another_precision_is_an_error(asked: PrecisionName, dtype: str, tactic: str) -> None:
    layers = read_layers(network(dtype, "10", tactic))
    with pytest.raises(TdcError, match="the engine computes in") as caught:
        check_precision(layers, asked)
    assert asked in caught.value.expected


def test_fp16_engines_may_keep_layers_in_fp32() -> None:
    """The file says so of some, and before TensorRT 10 it is a permission only."""
    layers = read_layers(
        engine_text(
            [
                layer("a", "Convolution", ["x"], "y", "float16"),
                layer("b", "Convolution", ["y"], "z", "float32"),
            ]
        )
    )
    assert check_precision(layers, "fp16").name == "mixed"


def test_tf32_is_a_permission() -> None:
    assert check_precision(read_layers(network("float32", "10")), "tf32").name == "fp32"


def test_unknown_types_are_not_taken_for_fp32() -> None:
    unknown = {"Name": "a", "LayerType": "Convolution", "Inputs": [], "Outputs": []}
    with pytest.raises(TdcError, match="1 unknown"):
        check_precision(read_layers(engine_text([unknown])), "fp32")


@pytest.mark.parametrize("form", FORMS)
def test_a_reformat_of_the_input_is_fine_and_one_of_a_weight_is_not(form: str) -> None:
    plugin = layer("conv2.last", "PluginV3", PLUGIN_INPUTS, "y", form=form)
    before = [layer("r", "Reformat", ["w"], "x", form=form), plugin]
    check_weight_reformats(read_layers(engine_text(before, form)))
    for position, name in enumerate(PLUGIN_INPUTS[1:], start=1):
        before = [layer("r", "Reformat", ["w"], name, form=form), plugin]
        with pytest.raises(TdcError, match=f"converts input {position} of 'conv2.last'"):
            check_weight_reformats(read_layers(engine_text(before, form)))


def test_a_reformat_without_a_layer_of_its_own_shows_in_the_name() -> None:
    inputs = [*PLUGIN_INPUTS[:3], "Reformatted Input Tensor 3 to conv2.last", *PLUGIN_INPUTS[4:]]
    plugin = layer("conv2.last", "PluginV2", inputs, "y")
    with pytest.raises(TdcError, match="converts input 3"):
        check_weight_reformats(read_layers(engine_text([plugin])))


def test_constants_and_residuals_are_fine() -> None:
    layers = [
        layer("c", "Constant", [], "first"),
        layer("r", "Reformat", ["q"], "skip"),
        layer("conv2.last", "PluginV3", [*PLUGIN_INPUTS, "skip"], "y"),
    ]
    check_weight_reformats(read_layers(engine_text(layers)))
