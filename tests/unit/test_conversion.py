"""The int8 copy kept for the next start: what quantising in memory gives, made once, whatever goes wrong meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from inference import conversion, starter
from inference.checkpoint import Checkpoint, Int8, Unreadable
from inference.conversion import NoRoom, converted
from inference.random_weights import RandomWeights, shapes

ROOT = Path(__file__).resolve().parents[2]
CONFIG = SimpleNamespace(
    vocab_size=61,  # odd sizes, so that types end up unaligned unless they are sorted
    hidden_size=33,
    intermediate_size=47,
    moe_intermediate_size=15,
    num_hidden_layers=2,
    num_attention_heads=2,
    n_routed_experts=3,
    n_shared_experts=1,
    first_k_dense_replace=1,
    kv_lora_rank=17,
    q_lora_rank=None,
    qk_nope_head_dim=8,
    qk_rope_head_dim=4,
    v_head_dim=9,
    tie_word_embeddings=False,
    attention_bias=False,
)
UP = "model.layers.0.mlp.up_proj.weight"


def model_folder(folder: Path, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Path:
    """A model in two shards with the files that come along."""
    folder.mkdir(exist_ok=True)
    source = RandomWeights(CONFIG, "cpu", dtype, seed=seed)
    names = list(shapes(CONFIG))
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, its in halves.items():
        save_file({name: source.tensor(name) for name in its}, folder / file)
    where = {name: file for file, its in halves.items() for name in its}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "config.json").write_text('{"model_type": "deepseek_v2"}')
    (folder / "tokenizer.json").write_text('{"any": "thing"}')
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def copies(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))


def same(a: Checkpoint, b: Checkpoint) -> None:
    for name in shapes(CONFIG):
        one, other = a.matrix(name), b.matrix(name)
        if isinstance(one, Int8):
            assert isinstance(other, Int8), name
            assert torch.equal(one.values, other.values), name
            assert torch.equal(one.scale, other.scale), name
        else:
            assert isinstance(other, Tensor), name
            assert torch.equal(one, other), name


def run(*arguments: object, code: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_copy_reads_like_quantising_in_memory(tmp_path: Path, cache: Path, dtype: torch.dtype) -> None:
    folder = model_folder(tmp_path / "model", dtype)
    seen: list[float] = []
    made = converted(folder, cache, seen.append)
    in_memory = Checkpoint(folder, "cpu", torch.float32, int8=True)
    same(in_memory, Checkpoint(made, "cpu", torch.float32))
    same(in_memory, Checkpoint(made, "cpu", torch.float32, int8=True))
    assert isinstance(in_memory.matrix(UP), Int8)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert [file.name for file in made.glob("*.safetensors")] == ["model.safetensors"]
    for name in ("config.json", "tokenizer.json"):
        assert (made / name).read_bytes() == (folder / name).read_bytes()
    assert load_file(made / "model.safetensors")["model.norm.weight"].dtype == dtype  # floats as they were stored


def test_the_copy_has_the_starter_s_form(folder: Path, cache: Path) -> None:
    ours = load_file(converted(folder, cache) / "model.safetensors")
    theirs = load_file(starter.FOLDER / starter.WEIGHTS)
    for tensors in (ours, theirs):
        assert (tensors[UP].dtype, tensors[f"{UP}_scale"].dtype) == (torch.int8, torch.float32)
        assert tensors[f"{UP}_scale"].shape == (tensors[UP].shape[0], 1)


def test_every_tensor_of_the_copy_is_aligned(folder: Path, cache: Path) -> None:
    for name, tensor in load_file(converted(folder, cache) / "model.safetensors").items():
        assert tensor.data_ptr() % tensor.element_size() == 0, name


def test_the_second_start_finds_the_copy(folder: Path, cache: Path) -> None:
    made = converted(folder, cache)
    before = (made / "model.safetensors").stat()
    seen: list[float] = []
    assert converted(folder, cache, seen.append) == made
    assert seen == []
    after = (made / "model.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_model_that_is_int8_already_is_its_own_copy(cache: Path) -> None:
    assert converted(starter.FOLDER, cache) == starter.FOLDER
    assert not cache.exists()


@pytest.mark.parametrize("file", ["model-1.safetensors", "config.json"])
def test_a_changed_source_is_converted_anew_and_its_old_copy_removed(folder: Path, cache: Path, file: str) -> None:
    other = converted(model_folder(folder.with_name("other")), cache)
    old = converted(folder, cache)
    if file == "config.json":
        (folder / file).write_text('{"model_type": "another"}')
    else:
        model_folder(folder, seed=1)  # the same sizes, other numbers
    new = converted(folder, cache)
    assert new != old
    assert copies(cache) == sorted([new.name, other.name])
    same(Checkpoint(folder, "cpu", torch.float32, int8=True), Checkpoint(new, "cpu", torch.float32))
    assert (new / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_the_weights_in_use_outlive_their_removal(folder: Path, cache: Path) -> None:
    if os.name != "posix":
        pytest.skip("elsewhere a mapped file can't be removed")
    old = Checkpoint(converted(folder, cache), "cpu", torch.float32)
    in_memory = Checkpoint(model_folder(folder.with_name("again")), "cpu", torch.float32, int8=True)
    os.utime(folder / "model-1.safetensors")
    converted(folder, cache)
    same(in_memory, old)


def test_a_cut_copy_is_made_anew(folder: Path, cache: Path) -> None:
    made = converted(folder, cache)
    with (made / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    assert converted(folder, cache) == made
    same(Checkpoint(folder, "cpu", torch.float32, int8=True), Checkpoint(made, "cpu", torch.float32))


def test_a_killed_conversion_leaves_nothing_that_is_taken_for_a_copy(folder: Path, cache: Path) -> None:
    code = (
        "import os, pathlib, sys; from inference.conversion import converted\n"
        f"die = lambda share: os.kill(os.getpid(), {int(signal.SIGTERM)}) if share > 0.5 else None\n"
        "converted(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), die)"
    )
    killed = run(folder, cache, code=code)
    killed.communicate()
    assert killed.returncode == -signal.SIGTERM
    (left,) = copies(cache)
    assert left.endswith(".partial")
    assert (cache / left / "model.safetensors").stat().st_size > 0
    made = converted(folder, cache)
    assert copies(cache) == [made.name]
    same(Checkpoint(folder, "cpu", torch.float32, int8=True), Checkpoint(made, "cpu", torch.float32))


def test_a_failed_conversion_cleans_up(folder: Path, cache: Path) -> None:
    def fail(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converted(folder, cache, fail)
    assert copies(cache) == []


def test_of_two_converters_at_once_one_works_and_both_get_the_copy(folder: Path, cache: Path) -> None:
    code = (
        "import pathlib, sys, time; from inference.conversion import converted\n"
        "work = lambda share: (time.sleep(0.02), calls.append(share))\n"
        "calls = []; print('ready', flush=True); sys.stdin.readline()\n"
        "print(converted(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), work), len(calls))"
    )
    both = [run(folder, cache, code=code) for _ in range(2)]
    for process in both:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    results = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert results[0][0] == results[1][0]
    assert sorted(int(calls) > 0 for _, calls in results) == [False, True]
    assert copies(cache) == [Path(results[0][0]).name]
    same(Checkpoint(folder, "cpu", torch.float32, int8=True), Checkpoint(Path(results[0][0]), "cpu", torch.float32))


def test_a_full_disk_is_told_with_the_figures(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(file.stat().st_size for file in converted(folder, cache).iterdir())
    shutil.rmtree(cache)
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda path: SimpleNamespace(free=size))
    assert converted(folder, cache).is_dir()
    shutil.rmtree(cache)
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda path: SimpleNamespace(free=size - 1))
    with pytest.raises(NoRoom) as caught:
        converted(folder, cache)
    assert f"{size / 1e9:.2f} GB" in str(caught.value)
    assert f"{cache} has {(size - 1) / 1e9:.2f} GB free" in str(caught.value)
    assert copies(cache) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_meanwhile_is_no_crash(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_sync", lambda file: Path("/dev/full").write_bytes(b"x"))
    with pytest.raises(NoRoom, match="the disk filled up while an int8 copy of"):
        converted(folder, cache)
    assert copies(cache) == []


def test_a_damaged_source_is_named_and_leaves_nothing(folder: Path, cache: Path) -> None:
    bad = RandomWeights(CONFIG, "cpu", torch.float32)
    tensors = {name: bad.tensor(name) for name in shapes(CONFIG)}
    tensors[UP][3, 3] = float("nan")
    for file in folder.glob("model*"):
        file.unlink()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(Unreadable, match=r"up_proj\.weight in .*model\.safetensors holds infinities or NaN"):
        converted(folder, cache)
    assert copies(cache) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_converting_needs_little_memory_however_large_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    row = torch.randn(512, 4096).bfloat16()  # 4 MB each
    save_file({f"model.layers.{i}.mlp.up_proj.weight": row.clone() for i in range(60)}, folder / "model.safetensors")
    # The peak of this process alone, mapped files included; ru_maxrss would begin at that of its parent.
    code = (
        "import pathlib, re, sys; from inference.conversion import converted; import filelock, torch\n"
        "from inference.checkpoint import quantise\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', pathlib.Path('/proc/self/status').read_text())[1]) << 10\n"
        "quantise(torch.ones(8, 8))  # so that its code is in memory\n"
        "before = peak(); made = converted(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
        "print(peak() - before, (made / 'model.safetensors').stat().st_size)"
    )
    process = run(folder, tmp_path / "cache", code=code)
    out, err = process.communicate()
    assert process.returncode == 0, err
    grown, size = map(int, out.split())
    assert size > 120 << 20
    assert grown < size
