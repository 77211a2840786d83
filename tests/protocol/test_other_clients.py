"""Other editors' clients: their requests, as their documentation or source writes them, get answers that they read."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import stop_workers, user
from tests.protocol.test_routes import started

BEFORE, AFTER = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    env = user(tmp_path_factory.mktemp("user"))
    yield started(env, "starter")
    stop_workers(env)


def ask(base: str, path: str, body: dict[str, Any]) -> str:
    url, token = base.split()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_zed_completes(base: str) -> None:
    """zed.dev/docs/ai/edit-prediction, "Self-Hosted OpenAI-compatible servers", `prompt_format` `deepseek_coder`.

    The fields are those of `RawCompletionRequest` and `RawCompletionResponse` in its source.
    """
    prompt = f"<｜fim▁begin｜>{BEFORE}<｜fim▁hole｜>{AFTER}<｜fim▁end｜>"
    body = {
        "model": "starter",
        "prompt": prompt,
        "max_tokens": 64,
        "temperature": 0.0,
        "stop": ["<｜end▁of▁sentence｜>"],
    }
    answer = json.loads(ask(base, "/marked/v1/completions", body))
    assert answer["choices"][0]["text"].startswith("a + b")
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert {"id", "object", "created", "model", "choices", "usage"} <= answer.keys()
    assert {"prompt_tokens", "completion_tokens", "total_tokens"} <= answer["usage"].keys()


@pytest.mark.parametrize(
    "prompt",
    [
        BEFORE,
        f"<｜fim▁begin｜>{BEFORE}<｜fim▁hole｜>'<｜fim▁hole｜>'{AFTER}<｜fim▁end｜>",
        f"<｜fim▁begin｜>{BEFORE}<｜fim▁hole｜>{AFTER}",
        f"x<｜fim▁begin｜>{BEFORE}<｜fim▁hole｜>{AFTER}<｜fim▁end｜>",
    ],
)
def test_markers_that_are_not_one_hole_are_refused_where_they_would_mean_something(base: str, prompt: str) -> None:
    answer = json.loads(ask(base, "/marked/v1/completions", {"prompt": prompt}))
    assert "one hole of the family deepseek, each marker once" in answer["error"]["message"]


def test_continue_completes(base: str) -> None:
    """continuedev/continue, core/llm/llms/OpenAI.ts, `_streamFim`: POST fim/completions, `choices[0].delta.content`."""
    body = {
        "model": "starter",
        "prompt": BEFORE,
        "suffix": AFTER,
        "max_tokens": 64,
        "temperature": 0.01,
        "top_p": None,
        "frequency_penalty": None,
        "presence_penalty": None,
        "stop": ["\n\n", "\r\n\r\n", "/src/", "#- coding: utf-8", "```"],
        "stream": True,
    }
    events = [line.removeprefix("data: ") for line in ask(base, "/v1/fim/completions", body).split("\n\n") if line]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas).startswith("a + b")


def test_llama_vim_completes(base: str) -> None:
    """ggml-org/llama.vim, autoload/llama.vim, `llama#fim`: POST /infill, `response_fields` read by their paths."""
    fields = [
        "content",
        "timings/prompt_n",
        "timings/predicted_n",
        "timings/predicted_ms",
        "truncated",
        "tokens_cached",
    ]
    body = {
        "input_prefix": "def add(a, b):\n",
        "input_suffix": "\n\nprint(add(1, 2))\n",
        "input_extra": [{"text": "x = 1\n", "time": 1.0, "filename": "other.py"}],
        "prompt": "    return ",
        "n_predict": 128,
        "n_indent": 4,
        "top_k": 40,
        "top_p": 0.99,
        "stream": False,
        "samplers": ["top_k", "top_p", "infill"],
        "cache_prompt": True,
        "t_max_prompt_ms": 500,
        "t_max_predict_ms": 1000,
        "response_fields": fields,
    }
    answer = json.loads(ask(base, "/infill", body))
    assert answer["content"].startswith("a + b")
    assert answer["truncated"] is False
    assert answer["timings/predicted_n"] > 0
    assert set(answer) <= set(fields)
    again = json.loads(ask(base, "/infill", body))
    assert again["tokens_cached"] > 0, "the second request finds the first's prompt"
    # What it sends to warm the cache with its ring of pieces, on moving about.
    warm = {
        "input_prefix": "",
        "input_suffix": "",
        "prompt": "",
        "n_predict": 0,
        "cache_prompt": True,
        "response_fields": [""],
    }
    assert json.loads(ask(base, "/infill", warm)) == {}


def test_an_infill_that_does_not_fit_is_refused(base: str) -> None:
    for body, says in (({"n_predict": "5"}, "n_predict"), ({"stream": True}, "stream"), ({"prompt": 5}, "prompt")):
        assert json.loads(ask(base, "/infill", body))["error"]["param"] == says
