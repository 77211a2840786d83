"""`fimble doctor --model X` looks at a model from its files to an answer."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.conftest import FIMBLE
from tests.models import instruct


def doctor(env: dict[str, str], model: str) -> str:
    command = [FIMBLE, "doctor", "--model", model]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=200).stdout


def test_the_starter_is_well_and_answers(fresh_state: dict[str, str]) -> None:
    found = doctor(fresh_state, "starter")
    assert "sha256 that was shipped" in found
    assert "text comes back from its tokens as it was" in found
    assert "from transformers' in float32" in found
    assert "filled with 'a + b'" in found
    assert "FAIL" not in found


def test_a_damaged_copy_is_found_out(fresh_state: dict[str, str], tmp_path: Path) -> None:
    folder = instruct(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    found = doctor(fresh_state, str(folder))
    assert "FAIL" in found
    assert "its header says" in found
    weights.unlink()
    assert "holds no *.safetensors" in doctor(fresh_state, str(folder))
