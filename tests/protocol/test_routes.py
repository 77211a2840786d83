"""OpenAI's routes on the worker, asked by OpenAI's own client."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import openai
import pytest
import torch
from openai.types import Completion

from inference import starter
from inference.endpoint import WorkerSettings, endpoint
from inference.tokens import Tokens
from inference.weights import load
from tests.conftest import FIMBLE, user
from tests.models import instruct

PROMPT = "def add(a, b):\n    return"
MARKERS = "<｜fim▁begin｜><｜fim▁hole｜><｜fim▁end｜><｜end▁of▁sentence｜>"


def started(env: dict[str, str], model: str) -> str:
    """Starts a worker on a loopback port; its base URL and token as `URL TOKEN`."""
    command = [FIMBLE, "worker", "start", "--transport", "tcp", "--model", model]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", env["XDG_STATE_HOME"])
        port, token = endpoint(WorkerSettings(model, transport="tcp")).read_address()
    return f"http://127.0.0.1:{port} {token}"


@pytest.fixture(scope="module")
def me(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return user(tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="module")
def base(me: dict[str, str]) -> Iterator[str]:
    """The starter's worker."""
    yield started(me, "starter")
    subprocess.run([FIMBLE, "worker", "stop", "--transport", "tcp"], env=me, check=True, capture_output=True)


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return instruct(tmp_path_factory.mktemp("models") / "Tiny-Instruct")


@pytest.fixture(scope="module")
def chatting(me: dict[str, str], chat_folder: Path) -> Iterator[str]:
    """The worker of a random model that has DeepSeek-Coder-V2's chat template."""
    yield started(me, str(chat_folder))
    command = [FIMBLE, "worker", "stop", "--transport", "tcp", "--model", str(chat_folder)]
    subprocess.run(command, env=me, check=True, capture_output=True)


def client_of(address: str, key: str = "") -> openai.OpenAI:
    url, token = address.split()
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key or token, max_retries=0, timeout=120)


@pytest.fixture
def client(base: str) -> openai.OpenAI:
    return client_of(base)


@pytest.fixture
def chat(chatting: str) -> openai.OpenAI:
    return client_of(chatting)


def greedy(client: openai.OpenAI, prompt: Any, **more: Any) -> Completion:
    more = {"model": "starter", "max_tokens": 16, "temperature": 0} | more
    return cast(Completion, client.completions.create(prompt=prompt, **more))


def test_models_are_listed_and_found_by_name(client: openai.OpenAI, chat: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["starter"]
    assert client.models.retrieve("starter").owned_by == "fimble"
    assert [model.id for model in chat.models.list()] == ["Tiny-Instruct"]
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("gpt-4/turbo")
    assert refused.value.code == "model_not_found"


def test_a_text_is_gone_on_with(client: openai.OpenAI) -> None:
    answer = greedy(client, PROMPT, stop=["\n"])
    assert answer.object == "text_completion"
    assert answer.choices[0].text == " a + b"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.completion_tokens >= 3
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    cut = greedy(client, PROMPT, max_tokens=2)
    assert cut.choices[0].text == " a +"
    assert cut.choices[0].finish_reason == "length"


def test_the_same_text_comes_streamed_and_as_token_ids(client: openai.OpenAI) -> None:
    whole = greedy(client, PROMPT).choices[0].text
    chunks = list(
        client.completions.create(
            model="starter",
            prompt=PROMPT,
            max_tokens=16,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole
    assert len(chunks) > 4, "it comes as it is made"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 16
    ids = Tokens(starter.FOLDER / "tokenizer.json").encode(PROMPT)
    assert greedy(client, [0, *ids]).choices[0].text == whole


def test_a_stream_ends_with_done_and_has_one_id(base: str) -> None:
    import urllib.request

    url, token = base.split()
    body = json.dumps({"prompt": PROMPT, "max_tokens": 4, "stream": True}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body, {"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        events = response.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert len({json.loads(event.removeprefix("data: "))["id"] for event in events[:-2]}) == 1


def test_a_suffix_makes_it_a_hole(client: openai.OpenAI) -> None:
    answer = greedy(client, "def add(a, b):\n    ret", suffix="\n\nprint(add(1, 2))\n", stop="\n")
    assert answer.choices[0].text == "urn a + b", "healed: the cursor stands inside a word"


def test_prompts_and_choices_are_numbered_one_after_the_other(client: openai.OpenAI) -> None:
    prompts = [PROMPT, "for i in range("]
    both = greedy(client, prompts, n=2, temperature=0.8, seed=7)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    alone = [greedy(client, prompt).choices[0].text for prompt in prompts]
    assert [choice.text for choice in greedy(client, prompts).choices] == alone


def test_a_seed_repeats_a_sampled_answer_and_another_does_not(client: openai.OpenAI) -> None:
    def texts(seed: int) -> list[str]:
        answer = greedy(client, "x = ", n=4, temperature=1.2, seed=seed, max_tokens=12)
        return [choice.text for choice in answer.choices]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)
    assert len(set(texts(1))) > 1, "the choices of one request differ"
    assert texts(-1)
    assert texts(2**63 - 1)


def test_a_stop_is_found_across_tokens_and_nothing_of_it_is_sent(client: openai.OpenAI) -> None:
    whole = greedy(client, PROMPT, max_tokens=32).choices[0].text
    stop = whole[2:7]
    for stream in (False, True):
        answer: Any = greedy(client, PROMPT, max_tokens=32, stop=["no such", stop], stream=stream)
        text = "".join(chunk.choices[0].text for chunk in answer) if stream else answer.choices[0].text
        assert text == whole[:2]
    assert greedy(client, PROMPT, max_tokens=32, stop="no such").choices[0].text == whole


def test_logprobs_are_the_model_s_and_cover_exactly_the_text(client: openai.OpenAI) -> None:
    answer = greedy(client, PROMPT, logprobs=3, max_tokens=8)
    found = answer.choices[0].logprobs
    assert found
    assert found.tokens
    assert found.token_logprobs
    assert found.top_logprobs
    assert "".join(found.tokens) == answer.choices[0].text
    assert found.text_offset == [len("".join(found.tokens[:i])) for i in range(len(found.tokens))]
    for token, logprob, top in zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True):
        assert len(top) == 3
        assert math.isclose(top[token], logprob, abs_tol=1e-4)
        assert logprob == max(top.values()), "greedy"
    stopped = greedy(client, PROMPT, logprobs=0, max_tokens=8, stop="\n")
    assert stopped.choices[0].logprobs
    assert "".join(stopped.choices[0].logprobs.tokens or []) == stopped.choices[0].text
    assert greedy(client, PROMPT).choices[0].logprobs is None


def test_an_echo_with_logprobs_scores_the_prompt_as_the_model_does(client: openai.OpenAI) -> None:
    text = PROMPT + " a + b\n" * 80
    answer = greedy(client, text, echo=True, logprobs=1, max_tokens=0)
    assert answer.choices[0].text == text
    found = answer.choices[0].logprobs
    assert found
    assert found.tokens
    assert found.token_logprobs
    assert "".join(found.tokens) == text
    loaded = load("starter", "cpu", "auto", lambda *_: None)
    ids = [*loaded.config.opening, *loaded.tokens.encode(text)]
    logits = loaded.model.forward([(loaded.model.begin(ids, reuse=False), len(ids), len(ids))])
    expected = torch.log_softmax(logits[:-1], -1)[range(len(ids) - 1), ids[1:]]
    assert torch.allclose(torch.tensor(found.token_logprobs), expected, atol=1e-3)
    assert len(ids) > 256, "more than one forward"
    streamed: Any = greedy(client, text, echo=True, logprobs=1, max_tokens=3, stream=True)
    chunks = list(streamed)
    assert chunks[0].choices[0].text.startswith(text)
    tokens = [token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.tokens]
    assert "".join(tokens) == "".join(chunk.choices[0].text for chunk in chunks)
    assert greedy(client, "a = 1\n", echo=True, max_tokens=2).choices[0].text.startswith("a = 1\n")


def test_marker_strings_in_a_text_stay_text(client: openai.OpenAI) -> None:
    tokens = Tokens(starter.FOLDER / "tokenizer.json")
    text = f"x = '{MARKERS}'\n"
    answer = greedy(client, text)
    assert answer.usage
    assert answer.usage.prompt_tokens == 1 + len(tokens.encode(text)), "bos and the text"
    assert not set(tokens.encode(text)) & set(tokens.control.values())
    hole = greedy(client, text, suffix=text)
    assert hole.usage
    assert hole.choices[0].finish_reason in ("length", "stop")
    assert hole.usage.prompt_tokens >= 2 * len(tokens.encode(text)), "no marker was swallowed"


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"prompt": 5}, "prompt", "must be a string"),
        ({"prompt": []}, "prompt", "not empty"),
        ({"prompt": ["a", 5]}, "prompt", "must be a string"),
        ({"prompt": [[]]}, "prompt", "must be a string"),
        ({}, "prompt", "must be a string"),
        ({"prompt": [99999999]}, None, "token id 99999999"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens", "whole number from 1"),
        ({"prompt": "a", "max_tokens": "5"}, "max_tokens", "whole number"),
        ({"prompt": "a", "temperature": 3}, "temperature", "from 0 to 2"),
        ({"prompt": "a", "temperature": True}, "temperature", "number"),
        ({"prompt": "a", "top_p": -1}, "top_p", "from 0 to 1"),
        ({"prompt": "a", "n": 99}, "n", "from 1 to 16"),
        ({"prompt": "a", "stop": 5}, "stop", "list of strings"),
        ({"prompt": "a", "stop": ["x"] * 20}, "stop", "16 strings"),
        ({"prompt": "a", "logprobs": True}, "logprobs", "whole number"),
        ({"prompt": "a", "stream": "yes"}, "stream", "true or false"),
        ({"prompt": "a", "seed": 2**70}, "seed", "whole number"),
        ({"prompt": "a", "presence_penalty": 0.5}, "presence_penalty", "not supported"),
        ({"prompt": "a", "logit_bias": {"5": 1}}, "logit_bias", "not supported"),
        ({"prompt": "a", "best_of": 3}, "best_of", "not supported"),
        ({"prompt": "a", "suffix": "b", "echo": True}, "echo", "suffix"),
        ({"prompt": [1, 2], "suffix": "b"}, "prompt", "must be text"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(client: openai.OpenAI, body: Any, param: str | None, says: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/completions", body={"model": "starter"} | body, cast_to=object)
    assert says in refused.value.message
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"


def test_other_errors_have_openai_s_form_and_status(client: openai.OpenAI, base: str) -> None:
    with pytest.raises(openai.AuthenticationError) as unknown:
        client_of(base, "wrong").models.list()
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError, match="this worker has `starter`"):
        greedy(client, "a", model="gpt-4")
    with pytest.raises(openai.BadRequestError) as long:
        greedy(client, "x = 1\n" * 2000)
    assert long.value.code == "context_length_exceeded"
    assert "maximum context length is 2048 tokens" in long.value.message
    with pytest.raises(openai.NotFoundError):
        client.post("/chat/nothing", body={}, cast_to=object)
    with pytest.raises(openai.BadRequestError, match="no JSON"):
        client.post("/completions", content=b"{", cast_to=object)
    with pytest.raises(openai.BadRequestError, match="JSON object"):
        client.post("/completions", content=b"[]", cast_to=object)


def test_a_base_model_says_that_it_has_no_chat_template(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="instruct model, such as DeepSeek-Coder-V2-Lite-Instruct"):
        client.chat.completions.create(model="starter", messages=[{"role": "user", "content": "hello"}])


def running(address: str) -> int:
    import urllib.request

    url, token = address.split()
    request = urllib.request.Request(f"{url}/health", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read()).get("running", 0)


def test_a_client_that_leaves_frees_the_model(client: openai.OpenAI, base: str) -> None:
    def gone() -> None:
        deadline = time.monotonic() + 60
        while running(base):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    stream: Any = greedy(client, "# long\n", max_tokens=1900, temperature=1, n=2, stream=True)
    next(iter(stream))
    assert running(base)
    stream.close()
    gone()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).completions.create(
            model="starter", prompt="# long\n", max_tokens=1900, temperature=1, n=8
        )
    gone()


def test_several_clients_at_once_get_what_each_would_alone(client: openai.OpenAI) -> None:
    prompts = ["def add(a, b):", "for (let i = 0;", "func main() {", "public class A {"]
    alone = [greedy(client, prompt).choices[0].text for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda prompt: greedy(client, prompt).choices[0].text, prompts))
    assert together == alone


MESSAGES: list[Any] = [
    {"role": "system", "content": "You write code."},
    {"role": "user", "content": "write a quick sort algorithm in python."},
    {"role": "assistant", "content": "def quick_sort(arr): ..."},
    {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "text", "text": "merge sort?"}]},
]


def test_a_chat_whole_streamed_and_with_its_logprobs(chat: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "Tiny-Instruct", "messages": MESSAGES, "temperature": 0, "max_tokens": 12}
    whole = chat.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    message = whole.choices[0].message
    assert message.role == "assistant"
    assert message.content
    found = whole.choices[0].logprobs
    assert found
    assert found.content
    spelled = b"".join(bytes(token.bytes or []) for token in found.content)
    assert spelled.decode("utf-8", "replace").startswith(message.content.rstrip("\ufffd"))
    assert all(len(token.top_logprobs) == 2 for token in found.content)
    chunks: Any = list(chat.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.usage
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    several = chat.chat.completions.create(**{**asked, "temperature": 1, "n": 3, "seed": 1})
    assert [choice.index for choice in several.choices] == [0, 1, 2]


def test_without_a_limit_a_chat_has_the_window(chat: openai.OpenAI) -> None:
    stream: Any = chat.chat.completions.create(model="Tiny-Instruct", messages=MESSAGES[:2], temperature=1, stream=True)
    pieces = [chunk for chunk, _ in zip(stream, range(80), strict=False)]
    stream.close()
    assert len(pieces) == 80, "more than the 16 or 64 tokens of other defaults"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools"),
        ({"messages": MESSAGES, "top_logprobs": 3}, "top_logprobs"),
        ({"messages": MESSAGES, "response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_a_chat_that_does_not_fit_is_refused_by_name(chat: openai.OpenAI, body: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat.post("/chat/completions", body=body, cast_to=object)
    assert refused.value.param == param
