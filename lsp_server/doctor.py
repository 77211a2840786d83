"""`fimble doctor`: checks what completions need. Every line says what was found and, where it is wrong, what to do."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import attrs
import psutil
from rich.console import Console
from rich.markup import escape

from inference.endpoint import Unsafe, clean_environment, endpoint, llamacpp_missing
from inference.version import VERSION
from lsp_server import connect
from lsp_server.backends import keys
from lsp_server.backends.remote import RemoteBackend, Site
from lsp_server.backends.remote_settings import RemoteSettings
from lsp_server.backends.worker import WorkerBackend
from lsp_server.languages import grammars
from lsp_server.settings import Settings

GIB = 2**30

# In a process of its own: this one must not import torch, and a torch that crashes must not take the doctor along.
PROBE = """
import json, sys
from inference import starter, weights
from inference.families import NoInfilling
from inference.tokens import Tokens
out = {}
import torch
out["torch"] = torch.__version__
out["threads"] = torch.get_num_threads()
out["cuda"] = [(torch.cuda.get_device_name(i), torch.cuda.get_device_properties(i).total_memory)
               for i in range(torch.cuda.device_count())]
out["mps"] = torch.backends.mps.is_available()
import transformers
out["transformers"] = transformers.__version__
try:
    folder = starter.FOLDER if sys.argv[1] == "starter" else weights.find(sys.argv[1])
    if sys.argv[1] == "starter":
        starter.verify()
    out["files"] = str(folder)
    tokens = Tokens(folder / "tokenizer.json")
    out["vocabulary"] = len(tokens.vocabulary)
    out["markers"] = str(tokens.markers(sys.argv[1]))
    from inference import memory
    from inference.models.rope import Unsupported
    from inference.models.shapes import shape_of
    try:
        shape = shape_of(json.loads((folder / "config.json").read_text("utf-8")))
        out["needs"] = {dtype: memory.wanted(shape, dtype, "cuda") for dtype in ("bfloat16", "int8")}
    except Unsupported:
        pass
except Exception as error:
    out["error"] = str(error)
print(json.dumps(out))
"""


@attrs.frozen
class Line:
    """One finding."""

    ok: bool
    what: str
    found: str
    advice: str = ""


def run(console: Console, settings: Settings, *, thorough: bool = False) -> int:
    """Prints every finding, `thorough` ones of the model too; the exit status is 1 if one prevents completions."""
    failed = 0
    for line in chain(findings(settings), _examined(settings) if thorough else ()):
        failed += not line.ok
        sign = "[green]ok[/green]  " if line.ok else "[red]FAIL[/red]"
        console.print(f"{sign} {line.what}: {escape(line.found)}", soft_wrap=True)
        if line.advice:
            advice = escape(line.advice).replace("\n", "\n       ")
            console.print(f"     [yellow]→ {advice}[/yellow]", soft_wrap=True)
    return 1 if failed else 0


def findings(settings: Settings) -> Iterator[Line]:
    """All checks, the cheap ones first."""
    yield _python()
    yield Line(True, "fimble", f"{VERSION} in {sys.prefix}")
    yield from _packages()
    yield from _machine()
    if settings.remote:
        yield from _engines(settings.remote)
    if settings.remote is None or settings.remote.fallback:
        yield from [_gguf(settings)] if settings.worker.is_gguf else _probe(settings)
        yield from _socket(settings)
        yield _worker(settings)
    yield from _grammars()
    for editor in connect.editors():
        yield Line(True, editor.name, editor.note, editor.lines)


def _examined(settings: Settings) -> Iterator[Line]:
    """What `inference.examine` finds, in a process of its own."""
    if settings.worker.is_gguf and llamacpp_missing():
        return
    where = endpoint(settings.worker)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "inference.examine", where.settings.model],
        cwd=where.state,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found: list[tuple[bool, str, str, str]] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        found = [(False, "model", f"the examination died: {why}", "see the worker's log, or free some memory")]
    yield from (Line(*one) for one in found)


def _python() -> Line:
    found = f"{platform.python_version()} ({sys.executable})"
    ok = sys.version_info >= (3, 11)
    return Line(ok, "Python", found, "" if ok else "install Python 3.11 or newer and reinstall fimble with it")


def _packages() -> Iterator[Line]:
    for name in ("pygls", "lsprotocol", "tree-sitter", "aiohttp"):
        try:
            yield Line(True, name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Line(False, name, "not installed", f"pip install {name}")


def _machine() -> Iterator[Line]:
    memory = psutil.virtual_memory()
    free = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free, {os.cpu_count()} cores"
    enough = memory.available > GIB
    yield Line(enough, "memory", free, "" if enough else "the starter model needs 1 GiB: close something")


def _probe(settings: Settings) -> Iterator[Line]:
    where = endpoint(settings.worker)
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE, where.settings.model],  # a folder's whole path
        cwd=where.state,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        yield Line(False, "torch", why, "reinstall it: pip install --force-reinstall torch transformers")
        return
    found = json.loads(done.stdout.splitlines()[-1])
    yield Line(True, "torch", f"{found['torch']}, {found['threads']} threads, transformers {found['transformers']}")
    cards = ", ".join(f"{name} ({memory / GIB:.0f} GiB)" for name, memory in found["cuda"])
    device = f"CUDA: {cards}" if cards else "MPS" if found["mps"] else "CPU only"
    advice = "" if cards or found["mps"] else "fine for the starter model; a 16B model wants a GPU"
    yield Line(True, "device", device, advice)
    if "error" in found:
        yield Line(
            False,
            "model",
            f"{settings.model}: {found['error']}",
            "see the message; `--model starter` always works",
        )
    else:
        yield Line(
            True,
            "model",
            f"{settings.model}: files complete in {found['files']}, {found['vocabulary']:,} tokens",
        )
        yield Line(True, "markers", f"each is one token: {found['markers']}")
        if "needs" in found:
            yield _gpu_memory(found["needs"], found["cuda"])


def _gguf(settings: Settings) -> Line:
    """A GGUF model and what serves it."""
    file = Path(settings.model).expanduser()
    if problem := llamacpp_missing():
        return Line(False, "llama.cpp", "not installed", problem)
    if not file.is_file():
        return Line(False, "model", f"there is no file {file}", "correct `fimble.model`")
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            return Line(False, "model", f"{file} is no GGUF file", "download it again, or name another one")
    version = importlib.metadata.version("xllamacpp")
    return Line(True, "model", f"{file}, {file.stat().st_size / GIB:.1f} GiB, for llama.cpp (xllamacpp {version})")


def _engines(remote: RemoteSettings) -> Iterator[Line]:
    """Each engine of others: whether it is there and fits."""

    async def look() -> list[tuple[Site, str]]:
        backend = RemoteBackend(remote)
        try:
            sites = await backend.look()
            return [(site, await keys.whence(remote.key_variable, site.url)) for site in sites]
        finally:
            await backend.close()

    for site, key in asyncio.run(look()):
        where = f"{site.url} ({remote.kind}), {key}"
        if site.state == "ready":
            yield Line(True, "engine", f"{where}: {site.model}, window of {site.window:,} tokens")
        else:
            yield Line(site.state == "loading", "engine", where, site.problem)
    yield Line(True, "stays here", f"documents that match {', '.join(remote.exclude) or 'nothing'}")


def _gpu_memory(needs: dict[str, int], cards: list[tuple[str, int]]) -> Line:
    """What the model takes of a GPU in each dtype, and which of them the GPUs here can hold."""
    figures = ", ".join(f"{size / GIB:.1f} GiB as {dtype}" for dtype, size in needs.items())
    if not cards:
        return Line(True, "on a GPU", f"the model would take {figures}")
    largest = max(size for _, size in cards)
    fitting = [dtype for dtype, size in needs.items() if size <= largest]
    found = f"the model takes {figures}; {largest / GIB:.0f} GiB hold {' or '.join(fitting) or 'neither'}"
    advice = (
        "" if "bfloat16" in fitting else "set `dtype` to int8" if fitting else "choose a smaller model, or `device` cpu"
    )
    return Line(bool(fitting), "on a GPU", found, advice)


def _socket(settings: Settings) -> Iterator[Line]:
    try:
        where = endpoint(settings.worker)
    except (Unsafe, OSError) as error:
        yield Line(False, "socket", str(error), "make the folder yours, or set XDG_STATE_HOME to a folder of yours")
        return
    yield Line(True, "socket", str(where.socket))
    yield Line(True, "logs", str(where.log))


def _worker(settings: Settings) -> Line:
    async def look() -> Line:
        backend = WorkerBackend(settings.worker)
        health = await backend.look()
        await backend.close()
        if health is None:
            return Line(True, "worker", "not running", "an editor starts it, or `fimble worker start`")
        text = (
            f"{health.status}, version {health.version}, {health.model} on {health.device or '?'}, process {health.pid}"
        )
        if health.status == "failed":
            return Line(False, "worker", f"{text}: {health.error}", "mend that, then `fimble worker stop`")
        old = health.version != VERSION
        return Line(True, "worker", text, "another version: `fimble worker stop`" if old else "")

    return asyncio.run(look())


def _grammars() -> Iterator[Line]:
    tried = grammars()
    broken = [f"{name} ({detail})" for name, ok, detail in tried if not ok]
    if broken:
        yield Line(
            False,
            "grammars",
            "broken: " + ", ".join(broken),
            "pip install --upgrade --force-reinstall fimble",
        )
    else:
        yield Line(True, "grammars", f"{len(tried)} load: " + ", ".join(name for name, _, _ in tried))
