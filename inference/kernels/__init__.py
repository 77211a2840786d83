"""Triton kernels for the steps of a DeepSeek-V2 layer at 1 to 64 rows, as `inference.models.steps` puts them together.

Weights are [out, in] and stream through once; the rows are the narrow side of every product. A row's sums run in one
order however many rows there are, so that its result never depends on its neighbours. Shapes in comments: m rows,
n outputs, k inputs, h heads, c values of a latent, r rotated, d unrotated values of a head, v of its output.
"""

from inference.kernels import attention, ends, narrow, prompt, routing, wide

__all__ = ["attention", "ends", "narrow", "prompt", "routing", "wide"]
