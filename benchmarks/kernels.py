"""The GPU kernels compiled for cards that need not be there: registers, spills and shared memory of each.

    python -m benchmarks.kernels [--arch 90 --arch 86] [--rows 1 --rows 64] [--dtype bfloat16] [--json OUT]

Shapes are those of DeepSeek-Coder-V2-Lite. Exit status 1 if a kernel spills or wants more shared memory than the card
has.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

import attrs
import torch
import triton
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from benchmarks import report
from benchmarks.lite import LITE
from inference.checkpoint import Int8, takes_int8
from inference.models.deepseek_v2 import DeepseekV2
from inference.models.deepseek_v2_config import config
from inference.models.steps import Steps
from inference.random_weights import RandomWeights

SHARED = {80: 163, 86: 99, 89: 99, 90: 227}
"""KiB of shared memory that a program may have, by compute capability."""
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@attrs.frozen
class Compiled:
    """What the compiler says of one kernel."""

    kernel: str
    arch: int
    rows: int
    dtype: str
    registers: int
    spilled: int
    """Bytes of local memory: a stack frame or spilled registers."""
    shared: int
    """Bytes."""

    @property
    def fits(self) -> bool:
        """Whether it runs at full speed on such a card."""
        return not self.spilled and self.shared <= SHARED[self.arch] * 1024


class _Shapes(RandomWeights):
    """Weights that have shapes only."""

    def __init__(self, shape: Any, dtype: torch.dtype, *, int8: bool):
        super().__init__(shape, "cpu", dtype, int8=int8)
        self.wanted, self.int8 = dtype, int8

    def tensor(self, name: str) -> Tensor:
        return torch.empty(self.shape(name), dtype=self.wanted, device="meta")

    def matrix(self, name: str) -> Tensor | Int8:
        if not (self.int8 and takes_int8(name, self.shape(name))):
            return self.tensor(name)
        rows, _ = self.shape(name)
        values = torch.empty(self.shape(name), dtype=torch.int8, device="meta")
        return Int8(values, torch.empty(rows, device="meta"))


class _Model(DeepseekV2):
    """On no device, in the form that it has on CUDA."""

    @property
    def _kind(self) -> str:
        return "cuda"


class _Absent:
    """Stands in for the driver of a card that isn't there; compiling asks it for little else than the target."""

    def __init__(self, arch: int):
        self._arch, self._target = arch, GPUTarget("cuda", arch, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return self._arch  # what is compiled is kept by this number, with the target that it first had

    def get_current_stream(self, _: int) -> int:
        return 0


class _Compiling(Steps):
    """Compiles what `Steps` would launch."""

    def __init__(self, *values: Any, **options: Any):
        super().__init__(*values, **options)
        self.made: list[tuple[str, Any]] = []

    def _launch(
        self, m: int, kernel: Any, grid: tuple[int, ...], values: tuple[Any, ...], *, late: bool = False, **options: Any
    ) -> None:
        self.made.append((kernel.fn.__name__, self.compile_one(m, kernel, grid, values, late=late, **options)))


def compiled(arch: int, rows: int, dtype: str) -> list[Compiled]:
    """Every kernel of a step of so many rows."""
    driver.set_active(_Absent(arch))  # pyright: ignore[reportArgumentType]
    shape = config({**LITE, "num_hidden_layers": 2})
    model = _Model(shape, _Shapes(shape, torch.bfloat16, int8=dtype == "int8"), "meta", 4096)
    pool = torch.empty(2, 4096, shape.latent, dtype=torch.bfloat16, device="meta")
    steps = _Compiling(model, pool, 64, 4096, pdl=arch >= 90)
    steps.run(rows)
    seen = {made.hash: (name, made) for name, made in steps.made}
    return [_look(name, made, arch, rows, dtype) for name, made in seen.values()]


def _look(name: str, made: Any, arch: int, rows: int, dtype: str) -> Compiled:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return Compiled(name, arch, rows, dtype, found["REG"], found["STACK"] + found["LOCAL"], int(made.metadata.shared))


def main(
    arch: Annotated[list[int], typer.Option(help="compute capabilities, as 90")] = [90],  # noqa: B006
    rows: Annotated[list[int], typer.Option(help="rows of the step")] = [1],  # noqa: B006
    dtype: Annotated[list[str], typer.Option(help="bfloat16, int8")] = ["bfloat16"],  # noqa: B006
    json: Annotated[Path | None, typer.Option(help="write the figures there")] = None,
) -> None:
    """See the module."""
    found = [one for a in arch for r in rows for d in dtype for one in compiled(a, r, d)]
    table = Table("kernel", "arch", "rows", "weights", "registers", "local B", "shared KiB")
    for one in found:
        style = "" if one.fits else "red"
        cells = (one.kernel, one.arch, one.rows, one.dtype, one.registers, one.spilled, f"{one.shared / 1024:.0f}")
        table.add_row(*map(str, cells), style=style)
    Console().print(table)
    if json:
        report.write(json, {"kernels": [attrs.asdict(one) for one in found]})
    raise typer.Exit(0 if all(one.fits for one in found) else 1)


if __name__ == "__main__":
    typer.run(main)
