"""What every benchmark writes down beside its figures: the command, the machine, the versions; and its percentiles."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.version import VERSION

LIBRARIES = ("torch", "triton", "transformers", "tokenizers", "pygls", "tree-sitter")
THREADING = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Variables that decide how torch's threads behave, and so belong to the command."""
MOST_BYTES = 50_000
"""Of a result that is committed as evidence."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, between neighbours by proportion; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def spread(values: Sequence[float], digits: int = 1) -> dict[str, float]:
    """p50, p95, p99 and the mean."""
    mean = sum(values) / len(values) if values else 0.0
    found = {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "p99": percentile(values, 0.99)}
    return {name: round(value, digits) for name, value in (found | {"mean": mean}).items()}


def header(module: str) -> dict[str, Any]:
    """The command as it was typed (of absolute paths only the name), the date, the machine and the versions."""
    arguments = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    chosen = [f"{name}={os.environ[name]}" for name in THREADING if name in os.environ]
    return {
        "command": " ".join([*chosen, "python -m", module, *arguments]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        },
        "versions": {"fimble": VERSION, "python": platform.python_version()}
        | {name: version for name in LIBRARIES if (version := _version(name))},
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """Writes a result; raises `ValueError` if it is too large to keep."""
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    if len(text.encode()) > MOST_BYTES:
        raise ValueError(f"{path} would have {len(text)} characters; a result is to stay below {MOST_BYTES} bytes")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _version(name: str) -> str | None:
    """Of an installed library; a machine with a GPU need not have those of the language server."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
    named = {name.strip(): value.strip() for name, value in fields.items()}
    flags = sorted({"avx2", "avx512_vnni", "amx_int8"} & set(named.get("flags", "").split()))
    return " ".join([named.get("model name", platform.machine()), *flags])
