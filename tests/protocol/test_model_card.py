"""The uses of DeepSeek-Coder-V2's model card as commands (docs/models.md)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference import memory
from inference.models.shapes import shape_of
from inference.weights import load
from lsp_server import talk
from tests.conftest import FIMBLE, stop_workers, user
from tests.models import instruct

# The card's example, "Code Insertion".
QUICK_SORT = """<|fim▁begin|>def quick_sort(arr):
    if len(arr) <= 1:
        return arr
    pivot = arr[0]
    left = []
    right = []
<|fim▁hole|>
        if arr[i] < pivot:
            left.append(arr[i])
        else:
            right.append(arr[i])
    return quick_sort(left) + [pivot] + quick_sort(right)<|fim▁end|>"""


@pytest.fixture(scope="module")
def me(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    env = user(tmp_path_factory.mktemp("user"))
    yield env
    stop_workers(env)


def run(env: dict[str, str], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([FIMBLE, *arguments], env=env, input=stdin, capture_output=True, text=True, timeout=200)


def test_code_completion(me: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "add.py"
    file.write_text("def add(a, b):\n    return")
    done = run(me, "generate", str(file), "--max-tokens", "16")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(" a + b")
    echoed = run(me, "generate", "-", "--echo", "--max-tokens", "16", stdin=file.read_text())
    assert echoed.stdout == file.read_text() + done.stdout
    missing = run(me, "generate", str(tmp_path / "none.py"))
    assert missing.returncode == 2
    assert "none.py" in missing.stderr


def test_code_insertion(me: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "quick_sort.py"
    for bar in "|｜":
        file.write_text(QUICK_SORT.replace("|", bar))
        done = run(me, "complete", str(file), "--markers")
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"right = \[\]\n    (for|while) .+:\n        if arr\[i\] < pivot:", done.stdout), done.stdout
        assert "fim▁" not in done.stdout
    file.write_text("def f():\n    pass\n")
    none = run(me, "complete", str(file), "--markers")
    assert none.returncode == 2
    assert "one hole" in none.stderr
    assert talk.unmarked("a<|fim▁hole|>b")[0] == "ab"


def test_chat_completion(me: dict[str, str], tmp_path: Path) -> None:
    folder = str(instruct(tmp_path / "Tiny-Instruct"))
    try:
        asked = run(me, "chat", "--model", folder, "--max-tokens", "8", "write a quick sort algorithm in python.")
        assert asked.returncode == 0, asked.stderr
        assert asked.stdout.strip()
        talked = run(me, "chat", "--model", folder, "--max-tokens", "8", stdin="one\n\ntwo\n")
        assert talked.returncode == 0, talked.stderr
        again = run(me, "chat", "--model", folder, "--max-tokens", "8", "one")
        assert talked.stdout.startswith(again.stdout), "the first turn is the same, the second knows it"
        assert len(talked.stdout) > len(again.stdout)
    finally:
        run(me, "worker", "stop", "--model", folder)
    base = run(me, "chat", "hello")
    assert base.returncode == 2
    assert "no chat template" in base.stderr
    assert "DeepSeek-Coder-V2-Lite-Instruct" in base.stderr


# config.json of DeepSeek-Coder-V2-Instruct (236B), as published.
LARGE = {
    "model_type": "deepseek_v2",
    "vocab_size": 102400,
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_hidden_layers": 60,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_routed_experts": 160,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "max_position_embeddings": 163840,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
    "tie_word_embeddings": False,
    "attention_bias": False,
    "norm_topk_prob": False,
    "routed_scaling_factor": 16.0,
    "scoring_func": "softmax",
    "topk_method": "group_limited_greedy",
    "n_group": 8,
    "topk_group": 3,
    "hidden_act": "silu",
}


def test_the_236b_is_refused_with_figures_and_the_command_that_serves_it(tmp_path: Path) -> None:
    import json
    import shutil

    from inference import starter

    folder = tmp_path / "DeepSeek-Coder-V2-Instruct"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LARGE))
    shutil.copy(starter.FOLDER / "tokenizer.json", folder)
    shape = shape_of(LARGE)
    assert 440 * 2**30 < memory.weight_bytes(shape, "bfloat16") < 460 * 2**30, "236 billion and what is made of them"
    with pytest.raises(memory.DoesNotFit) as refused:
        load(str(folder), "cpu", "bfloat16", lambda *_: None)
    said = str(refused.value)
    assert f"needs {memory.wanted(shape, 'bfloat16', 'cpu') / 2**30:.1f} GiB on cpu as bfloat16" in said
    assert f"vllm serve {folder} --dtype bfloat16 --tensor-parallel-size 8" in said
    assert "8 x 80 GB" in said, "as the model card says"
