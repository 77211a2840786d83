"""`fimble setup` on a machine with no GPU and no hub, and what it says where there is more."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lsp_server.setup import GIB, LITE, advice
from tests.conftest import FIMBLE


def setup(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    quiet = {**env, "CUDA_VISIBLE_DEVICES": "", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_ETAG_TIMEOUT": "2"}
    return subprocess.run([FIMBLE, "setup", *arguments], env=quiet, capture_output=True, text=True, timeout=200)


def test_without_a_gpu_it_recommends_the_starter_says_why_and_works(
    fresh_state: dict[str, str], tmp_path: Path
) -> None:
    done = setup(fresh_state, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "recommended: starter" in done.stdout
    assert "there is no CUDA device" in done.stdout
    settings = Path(fresh_state["XDG_CONFIG_HOME"]) / "fimble" / "settings.toml"
    assert 'model = "starter"' in settings.read_text()
    file = tmp_path / "add.py"
    file.write_text("def add(a, b):\n    ret\n")
    completed = subprocess.run([FIMBLE, "complete", f"{file}:2:8"], env=fresh_state, capture_output=True, text=True)
    assert "return a + b" in completed.stdout


def test_without_the_hub_it_says_how_to_bring_the_files_and_writes_nothing(fresh_state: dict[str, str]) -> None:
    done = setup(fresh_state, "--yes", "--model", LITE)
    assert done.returncode == 2
    assert f"hf download {LITE} --local-dir DIR" in done.stdout
    assert not (Path(fresh_state["XDG_CONFIG_HOME"]) / "fimble").exists()


def test_a_folder_is_taken_if_it_is_complete(fresh_state: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    assert "holds no config.json and no tokenizer.json" in setup(fresh_state, "--yes", "--model", str(folder)).stdout
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    done = setup(fresh_state, "--yes", "--model", str(folder))
    assert done.returncode == 0, done.stdout
    assert str(folder) in (Path(fresh_state["XDG_CONFIG_HOME"]) / "fimble" / "settings.toml").read_text()


@pytest.mark.parametrize(
    ("gib", "model", "dtype"), [(80, LITE, "bfloat16"), (24, LITE, "int8"), (8, "starter", ""), (0, "starter", "")]
)
def test_the_largest_card_decides(gib: int, model: str, dtype: str) -> None:
    advised = advice([("card", gib * GIB), ("small", GIB)] if gib else [])
    assert (advised.model, advised.dtype) == (model, dtype)
