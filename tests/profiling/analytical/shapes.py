"""Layers to predict, and a strategy that draws them."""

from __future__ import annotations

from hypothesis import strategies as st

from tdc_deploy.profiling.analytical.shapes import TuckerShape

# ResNet-18's layers at 224x224 with the paper's ranks.
LAYER1 = TuckerShape(1, 56, 56, 64, 64, 32, 32)
LAYER2 = TuckerShape(1, 28, 28, 128, 128, 96, 64)
LAYER4 = TuckerShape(1, 7, 7, 512, 512, 192, 160)
LAYER4_DOWN = TuckerShape(1, 14, 14, 256, 512, 160, 160, strides=(2, 2))
LAYER1_BATCH = TuckerShape(32, 56, 56, 64, 64, 32, 32)

ranks = st.integers(1, 32).map(lambda eighths: 8 * eighths)


@st.composite
def shapes(draw: st.DrawFn) -> TuckerShape:
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (5, 5), (7, 7), (3, 1)]))
    dilations = draw(st.sampled_from([(1, 1), (1, 1), (2, 2)]))
    pads = tuple(d * (k - 1) // 2 for d, k in zip(dilations, kernel, strict=True)) * 2
    assert len(pads) == 4
    return TuckerShape(
        n=draw(st.sampled_from([1, 2, 8, 64])),
        h=draw(st.integers(1, 64)),
        w=draw(st.integers(1, 64)),
        c=draw(st.integers(1, 600)),
        m=draw(st.integers(1, 600)),
        r_in=draw(ranks),
        r_out=draw(ranks),
        kernel=kernel,
        strides=draw(st.sampled_from([(1, 1), (2, 2), (1, 2)])),
        pads=pads,
        dilations=dilations,
        residual=draw(st.booleans()),
    )
