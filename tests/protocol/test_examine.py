"""`fimble doctor --model X` looks at a model from its files to an answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import llama
from tests.conftest import FIMBLE
from tests.models import instruct

WITHOUT_LLAMACPP = "import sys; sys.modules['xllamacpp'] = None; from fimble import main; main()"
"""The command where the package is not installed."""


def doctor(env: dict[str, str], model: str, *, command: tuple[str, ...] = (FIMBLE,), cwd: Path | None = None) -> str:
    line = [*command, "doctor", "--model", model]
    return subprocess.run(line, env=env, cwd=cwd, capture_output=True, text=True, timeout=200).stdout


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
    found = doctor(fresh_state, "model", cwd=tmp_path)
    assert "FAIL" in found
    assert "its header says" in found
    assert "copy it here from where the folder came from" in found
    weights.unlink()
    assert "holds no *.safetensors" in doctor(fresh_state, str(folder))


def test_a_gguf_file_is_loaded_and_asked(fresh_state: dict[str, str], tmp_path: Path) -> None:
    llama.write_model(tmp_path / "noise.gguf")
    found = doctor(fresh_state, "noise.gguf", cwd=tmp_path)
    assert "FAIL" not in found
    assert "def add(a, b): return … is filled with" in found
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "noise.gguf").read_bytes()[:-100_000])
    found = doctor(fresh_state, "cut.gguf", cwd=tmp_path)
    assert f"llama.cpp can't load {tmp_path / 'cut.gguf'}" in found
    assert "get the file again" in found


def test_without_llamacpp_a_gguf_file_brings_how_to_install_it(fresh_state: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    without = (sys.executable, "-P", "-c", WITHOUT_LLAMACPP)
    found = doctor(fresh_state, str(file), command=without, cwd=tmp_path)
    assert "FAIL llama.cpp: not installed" in found
    assert f"{sys.executable} -m pip install xllamacpp" in found
    run = [*without, "worker", "run", "--engine", "llamacpp", str(file)]
    refused = subprocess.run(run, env=fresh_state, capture_output=True, text=True, timeout=100)
    assert refused.returncode == 2
    assert "-m pip install xllamacpp" in refused.stderr
