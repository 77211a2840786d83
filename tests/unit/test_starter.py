"""The embedded model's files: proved whole when loaded, and markers that are one token each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inference import starter
from inference.families import DEEPSEEK, NoInfilling
from inference.tokens import Tokens


def copy(folder: Path, *names: str) -> Path:
    for name in names or starter.SHA256:
        shutil.copyfile(starter.FOLDER / name, folder / name)
    return folder


def flip_a_byte(file: Path, at: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 1]))


def test_the_embedded_model_is_what_was_shipped() -> None:
    starter.verify()


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("tokenizer.json", ("config.json", "tokenizer.json")),  # without the weights: they are checked after it
        (starter.WEIGHTS, tuple(starter.SHA256)),
    ],
)
def test_one_damaged_byte_is_noticed(tmp_path: Path, name: str, needed: tuple[str, ...]) -> None:
    folder = copy(tmp_path, *needed)
    flip_a_byte(folder / name, (folder / name).stat().st_size // 2)
    with pytest.raises(starter.Damaged) as caught:
        starter.verify(folder)
    assert str(folder / name) in str(caught.value)
    assert "is damaged" in str(caught.value)
    assert "reinstall fimble" in str(caught.value)


@pytest.mark.parametrize("name", starter.SHA256)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    before = list(starter.SHA256)[: list(starter.SHA256).index(name)]
    folder = copy(tmp_path, *before) if before else tmp_path
    with pytest.raises(starter.Damaged) as caught:
        starter.verify(folder)
    assert f"{folder / name} is missing" in str(caught.value)
    assert "reinstall fimble" in str(caught.value)


def test_a_cut_file_is_damaged(tmp_path: Path) -> None:
    folder = copy(tmp_path, "config.json", "tokenizer.json")
    with (folder / "tokenizer.json").open("r+b") as stream:
        stream.truncate(1000)
    with pytest.raises(starter.Damaged, match=r"tokenizer\.json is damaged"):
        starter.verify(folder)


def test_each_marker_is_one_token() -> None:
    markers = Tokens(starter.FOLDER / "tokenizer.json").markers()
    assert markers.family is DEEPSEEK
    assert [markers.ids[text] for text in DEEPSEEK.markers] == [0, 3, 2, 4, 1]


def without(folder: Path, *markers: str) -> Path:
    """The starter's tokenizer, in which `markers` have lost their tokens."""
    spec = json.loads((starter.FOLDER / "tokenizer.json").read_text("utf-8"))
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] not in markers]
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(spec), "utf-8")
    return file


def test_a_tokenizer_without_markers_is_refused_and_each_missing_one_named(tmp_path: Path) -> None:
    missing = (DEEPSEEK.prefix, DEEPSEEK.suffix, DEEPSEEK.middle)
    with pytest.raises(NoInfilling) as caught:
        Tokens(without(tmp_path, *missing)).markers()
    assert all(marker in str(caught.value) for marker in missing)
    assert DEEPSEEK.bos not in str(caught.value)


def test_one_missing_marker_is_enough_to_refuse(tmp_path: Path) -> None:
    with pytest.raises(NoInfilling) as caught:
        Tokens(without(tmp_path, DEEPSEEK.suffix)).markers()
    assert DEEPSEEK.suffix in str(caught.value)
    assert DEEPSEEK.prefix not in str(caught.value)


def test_two_markers_with_one_token_are_refused(tmp_path: Path) -> None:
    spec = json.loads((starter.FOLDER / "tokenizer.json").read_text("utf-8"))
    ids = {token["content"]: token["id"] for token in spec["added_tokens"]}
    next(token for token in spec["added_tokens"] if token["content"] == DEEPSEEK.middle)["id"] = ids[DEEPSEEK.suffix]
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(spec), "utf-8")
    with pytest.raises(NoInfilling, match="share one token id"):
        Tokens(file).markers()


@pytest.mark.parametrize("known", [True, False])
def test_its_logits_are_those_of_its_weights_on_a_processor_whose_integer_products_overflow(known: bool) -> None:
    script = f"""
import torch
from inference.models import int8_cpu
from inference.weights import load
from inference.models.int8_cpu import exact
if {known}:
    int8_cpu.seven_bits = lambda: True
def logits(dtype):
    model = load("starter", "cpu", dtype, lambda stage, share: None).model
    sequence = model.begin(list(range(300, 400)), reuse=False)
    return model.forward([(sequence, 100, 1)])
ours, theirs = logits("int8"), logits("float32")
print(exact(), float((ours - theirs).norm() / theirs.norm()))
"""
    environment = os.environ | ({} if known else {"ONEDNN_MAX_CPU_ISA": "AVX2"})
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    exact, error = done.stdout.split()[-2:]
    assert float(error) < (1e-4 if known else 1e-3), f"exact() said {exact}"
