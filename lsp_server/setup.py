"""`fimble setup`: looks at the machine, recommends a model, gets it, and writes the settings all editors read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import attrs
import psutil
from rich.console import Console
from rich.markup import escape
from rich.prompt import Confirm

from inference.endpoint import WorkerSettings, clean_environment, endpoint
from lsp_server import connect, user_settings

GIB = 2**30
LITE = "deepseek-ai/DeepSeek-Coder-V2-Lite-Base"

# In a process of its own: this one must not import torch.
PROBE = """
import json, torch
cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps([(card.name, card.total_memory) for card in cards]))
"""


TERMS = {
    "deepseek-license": """\
The DeepSeek licence allows commercial use. Its Attachment A forbids use of the model and of what is made from it
  - in breach of law, or of others' rights;
  - for military purposes in any way;
  - to exploit or harm minors;
  - to make or spread falsehoods meant to harm, unlawful content, or personal data without leave;
  - to defame, disparage or harass;
  - to decide by machine alone what affects somebody's rights or binds them;
  - to discriminate against people by their behaviour, personality or protected characteristics;
  - to exploit the weaknesses of a group of persons to their harm.
Whoever passes the model on must bind others to the same.
In full: https://github.com/deepseek-ai/DeepSeek-Coder-V2/blob/main/LICENSE-MODEL"""
}
"""What licences forbid in short, where a repository names one without its text."""


@attrs.frozen
class Advice:
    """A model for a machine: why, and what to expect of it."""

    model: str
    dtype: str
    why: str
    expect: str


def advice(cards: list[tuple[str, int]]) -> Advice:
    """What to run here; `cards`: the CUDA devices' names and bytes."""
    largest = max((size for _, size in cards), default=0)
    if largest >= 36 * GIB:
        expect = "32 GiB of its memory; 530 tokens a second and 4 ms to the first token on an H200"
        return Advice(LITE, "bfloat16", f"a GPU with {largest / GIB:.0f} GiB holds the 16B model", expect)
    if largest >= 20 * GIB:
        expect = "18 GiB of its memory; 659 tokens a second and 3 ms to the first token on an H200"
        return Advice(LITE, "int8", f"a GPU with {largest / GIB:.0f} GiB holds the 16B model in 8 bits", expect)
    lacking = f"the GPU's {largest / GIB:.0f} GiB are too few for it" if cards else "there is no CUDA device"
    why = f"the 16B model wants a GPU of 20 GiB or more, and {lacking}; the starter is built in and made for a CPU"
    return Advice(
        "starter",
        "",
        why,
        "about 0.7 GiB; a line after some 60 ms on two cores of an AMD EPYC, each new prompt up to 1 s",
    )


def run(console: Console, model: str, dtype: str, yes: bool) -> int:
    """Sets up a model; the exit status: 2 if it can't be had, 1 if the user declined."""
    seen = _ask(["-c", PROBE])
    cards = [(str(card[0]), int(card[1])) for card in cast(list[Any], seen)] if isinstance(seen, list) else []
    memory, cores = psutil.virtual_memory(), psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    gpus = ", ".join(f"{name} ({size / GIB:.0f} GiB)" for name, size in cards)
    found = f"{cores} cores, {memory.total / GIB:.0f} GiB memory, {gpus or 'no CUDA device'}"
    console.print(f"this machine: {found}", soft_wrap=True)
    advised = advice(cards)
    console.print(
        f"recommended: {advised.model}{f' as {advised.dtype}' if advised.dtype else ''}: {advised.why}", soft_wrap=True
    )
    console.print(f"expect: {advised.expect}", soft_wrap=True)
    chosen = model or advised.model
    dtype = dtype or (advised.dtype if chosen == advised.model else "")
    if Path(chosen).expanduser().is_dir():
        chosen = str(Path(chosen).expanduser().resolve())
        if lacking := [name for name in ("config.json", "tokenizer.json") if not (Path(chosen) / name).is_file()]:
            return _fail(console, f"{chosen} holds no {' and no '.join(lacking)}: it is no complete model folder")
    elif chosen != "starter" and not get(console, chosen, yes):
        return 2
    if not _agreed(console, f"write model = {chosen} to {user_settings.file()}?", yes, default=True):
        return 1
    try:
        file = user_settings.write({"model": chosen, "dtype": dtype})
    except (ValueError, OSError) as error:
        return _fail(console, str(error))
    console.print(f"written: {file}; every editor reads it, unless its own settings say otherwise", soft_wrap=True)
    console.print("`fimble doctor` checks it, `fimble demo` shows the starter at work\n")
    for editor in connect.editors():
        console.print(f"[bold]{editor.name}[/bold]: {escape(editor.note)}", soft_wrap=True)
        console.print(editor.lines + "\n", markup=False, soft_wrap=True)
    return 0


def get(console: Console, model: str, yes: bool) -> bool:
    """Downloads a model from the hub once its licence has been seen; False after saying why not.

    `yes`: the licence is accepted without asking.
    """
    card = _ask(["-m", "inference.download", model, "--card"])
    if card.get("folder"):
        console.print(f"the hub does not answer, but all files are here: {card['folder']}", soft_wrap=True)
        return True
    if "error" in card:
        _fail(console, _unobtainable(model, card))
        return False
    console.print(f"{model}: {card['size'] / GIB:.1f} GiB, licence: {escape(str(card['licence']))}", soft_wrap=True)
    link = card["link"] if "://" in card["link"] else f"https://huggingface.co/{model}"
    terms = card["text"] or TERMS.get(card["licence"], f"its terms: {link}")
    console.print(terms, markup=False, highlight=False, soft_wrap=True)
    if card["missing"] > card["free"]:
        lacking = f"{card['missing'] / GIB:.1f} GiB are to come, and the disk has {card['free'] / GIB:.1f} free"
        _fail(console, f"{lacking}: make room, or set HF_HOME to a folder on a larger one")
        return False
    if not _agreed(console, "do you accept these terms, and download it?", yes, default=False):
        return False
    got = _ask(["-m", "inference.download", model], progress=True)
    if "error" in got and got.get("kind"):
        _fail(console, _unobtainable(model, got))
    elif "error" in got:
        _fail(console, f"the download broke off ({got['error']}): run the same command again, it goes on from there")
    else:
        console.print(f"all files are here: {got['folder']}", soft_wrap=True)
    return "error" not in got


def _unobtainable(model: str, error: dict[str, Any]) -> str:
    """Why the hub does not give a model, and what to do."""
    page = f"https://huggingface.co/{model}"
    if error.get("kind") == "gated":
        return (
            f"{model} is given to those who accept its terms on {page}: do that, then `hf auth login`, then this again"
        )
    if error.get("kind") == "unknown":
        return f"the hub has no model {model} for you: compare the id with {page}; a private one wants `hf auth login`"
    return (
        f"{model} can't be had from the hub ({error['error']}): where the hub can be reached, run "
        f"`hf download {model} --local-dir DIR`, copy DIR to this machine, then `fimble setup --model DIR`; "
        "without a network `fimble setup --model starter` always works"
    )


def _agreed(console: Console, question: str, yes: bool, *, default: bool) -> bool:
    """The user's answer; no, if there is nobody to ask."""
    if yes:
        return True
    try:
        return Confirm.ask(escape(question), console=console, default=default)
    except EOFError:
        console.print("\nnobody is there to answer: --yes says yes to everything")
        return False


def _ask(arguments: list[str], progress: bool = False) -> Any:
    """The JSON that a Python process of ours prints last; its progress goes to the terminal."""
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=endpoint(WorkerSettings()).state,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=None if progress else subprocess.PIPE,
        text=True,
        check=False,
    )
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = ((done.stderr or "").strip().splitlines() or ["it said nothing"])[-1]
        return {"error": said}


def _fail(console: Console, message: str) -> int:
    console.print(f"[red]fimble:[/red] {escape(message)}", soft_wrap=True)
    return 2
