"""Where a test runs: on the CPU everywhere, on a CUDA device where there is one."""

from __future__ import annotations

import pytest
import torch

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(
            not torch.cuda.is_available(), reason="no CUDA device here; run `pytest -m gpu` where one is"
        ),
    ],
)
DEVICES = pytest.mark.parametrize("device", ["cpu", CUDA])
