"""`python -P -m inference.examine MODEL`: whether a model is what it should be, from its files to an answer.

For `fimble doctor --model`: one JSON list of [whether it is well, what was looked at, what was found, what to do].
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import queue
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from inference import memory, starter
from inference.tokens import Tokens
from inference.weights import Loaded, find, load
from inference.wire import End, Failure, FimRequest, Piece, Stops

Finding = tuple[bool, str, str, str]

SHA256 = 64
"""Hex digits of one."""
TRICKY = "def f(x):\n\treturn  x  # é 漢字 😀 <｜fim▁hole｜> <|fim_prefix|> </s>\r\n    \n"
HOLE = FimRequest("def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n", stops=Stops(max_tokens=24, end_of_line=True))
CLOSE = 0.002
"""Relative error of the starter's logits, whose int8 weights are the reference's too."""
WORSE = 1.5
"""How much more than the transformers library's own, in the same type, an error in 16 bits may be: rounding varies."""


def findings(name: str) -> Iterator[Finding]:
    """All checks; the first that fails ends them, as the later ones need what it looked at."""
    if name.endswith(".gguf"):
        yield from asyncio.run(of_llamacpp(name))
        return
    folder = starter.FOLDER if name == "starter" else find(name)
    if name == "starter":
        starter.verify()
        yield True, "hashes", f"each of {len(starter.SHA256)} files has the sha256 that was shipped", ""
    else:
        yield files(folder, name)
    tokens = Tokens(folder / "tokenizer.json")
    same = tokens.decode(tokens.encode(TRICKY)).decode() == TRICKY
    advice = "" if same else "take the tokenizer.json that was published with the model"
    yield same, "round trip", "text comes back from its tokens as it was" if same else "text comes back changed", advice
    loaded = load(name, "auto", "auto", _quiet)
    yield True, "loaded", f"{loaded.model.dtype} on {loaded.model.device}, window {loaded.model.window:,} tokens", ""
    yield against_transformers(folder, loaded)
    yield hole(loaded)


def _quiet(_: str, __: float) -> None:
    """Nobody follows the progress."""


def files(folder: Path, name: str) -> Finding:
    """Whether each file of weights is there, as long as its header says, and of the sha256 that the hub told of it."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(cast(dict[str, str], json.loads(index.read_text("utf-8"))["weight_map"]).values()))
    else:
        names = [file.name for file in folder.glob("*.safetensors")]
    from_hub = not Path(name).expanduser().is_dir()
    get = f"get it with `fimble setup --model {name}`" if from_hub else "copy it here from where the folder came from"
    if not names:
        return False, "weights", f"{folder} holds no *.safetensors", get
    paths = [folder / name for name in names]
    for file in paths:
        if not file.is_file():
            return False, "weights", f"{file} is missing", get
        if problem := _length(file):
            return False, "weights", f"{file} {problem}", f"delete {file.resolve()}, then {get}"
    promised = {file: digest for file in paths if (digest := _promised(file))}
    with ThreadPoolExecutor(4) as pool:
        for file, digest in zip(promised, pool.map(_sha256, promised), strict=True):
            if digest != promised[file]:
                found = f"{file} is damaged: its sha256 is {digest[:12]}…, not {promised[file][:12]}…"
                return False, "weights", found, f"delete {file.resolve()}, then {get}"
    hashed = f"{len(promised)} of them with the hub's sha256" if promised else "their hashes are not known here"
    return True, "weights", f"{len(names)} files as long as their headers say, {hashed}", ""


def _length(file: Path) -> str:
    """What is wrong with a file's length by its own header, if anything."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        head = int.from_bytes(opened.read(8), "little")
        if head > size - 8:
            return f"is cut off within its header ({size:,} bytes)"
        fields: dict[str, Any] = json.loads(opened.read(head))
    ends = [value["data_offsets"][1] for key, value in fields.items() if key != "__metadata__"]
    whole = 8 + head + max(ends, default=0)
    return f"has {size:,} bytes, its header says {whole:,}" if size != whole else ""


def _promised(file: Path) -> str:
    """A file's sha256 as the hub told it: its name in the hub's cache, or what `hf download --local-dir` noted."""
    note = file.parent / ".cache" / "huggingface" / "download" / f"{file.name}.metadata"
    told = [file.resolve().name, *(note.read_text("utf-8").split() if note.is_file() else [])]
    return next((word for word in told if len(word) == SHA256 and set(word) <= set("0123456789abcdef")), "")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def against_transformers(folder: Path, loaded: Loaded) -> Finding:
    """This engine's logits beside the transformers library's, on a short prompt."""
    import psutil
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if type(loaded.model).__name__ == "TransformersModel":
        return True, "logits", "computed by the transformers library itself", ""
    files = [file.stat().st_size for file in folder.glob("*.safetensors")]
    needed = sum(files) * (4 if folder == starter.FOLDER else 2)
    if needed > psutil.virtual_memory().available / 2:
        return True, "logits", f"not compared: that takes {needed / memory.GIB:.0f} GiB of memory more", ""
    model = cast(Any, AutoModelForCausalLM)
    if folder == starter.FOLDER:
        config = cast(Any, AutoConfig).from_pretrained(folder)
        theirs = model.from_config(config, dtype=torch.float32)
        theirs.load_state_dict(starter.state_dict(), strict=False)
        theirs.tie_weights()
    else:
        theirs = model.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    ids = [*loaded.config.opening, *loaded.tokens.encode(HOLE.prefix + HOLE.suffix)]
    sequence = loaded.model.begin(ids, reuse=False)
    ours = loaded.model.forward([(sequence, len(ids), len(ids))]).float().cpu()
    loaded.model.end(sequence, keep=False)
    with torch.inference_mode():
        exact = theirs.eval()(torch.tensor([ids])).logits[0]
        kind = loaded.model.dtype
        rounded = exact if kind == "int8" else theirs.to(getattr(torch, kind))(torch.tensor([ids])).logits[0]

    def error(logits: torch.Tensor) -> float:
        """Of a typical row: where two experts are as likely, rounding changes single rows a lot."""
        return float((logits.float() - exact).norm(dim=-1).div(exact.norm(dim=-1)).median())

    same, allowed = int((ours.argmax(-1) == exact.argmax(-1)).sum()), max(CLOSE, WORSE * error(rounded))
    found = f"{error(ours):.1e} from transformers' in float32"
    found += f" (its own in {kind}: {error(rounded):.1e})" if kind != "int8" else ""
    found += f", the same likeliest token at {same} of {len(ids)} places"
    well = error(ours) < allowed
    return well, "logits", found, "" if well else "report it with `fimble doctor`'s output"


def hole(loaded: Loaded) -> Finding:
    """What the model puts into a hole that has one likely answer."""
    from inference.engine import Engine

    engine = Engine(loaded.model, loaded.tokens, loaded.markers, loaded.no_infilling)
    replies: queue.Queue[Piece | End | Failure] = queue.Queue()
    engine.submit(HOLE, replies.put)
    said = [replies.get()]
    while isinstance(said[-1], Piece):
        said.append(replies.get())
    engine.close()
    return _filled(said)


async def of_llamacpp(file: str) -> list[Finding]:
    """A GGUF file: whether llama.cpp loads it, and what it puts into that hole."""
    from inference.managed_llamacpp import ManagedLlamaCpp, NotHere
    from inference.remote.dialect import Unfit

    try:
        engine = await asyncio.to_thread(ManagedLlamaCpp, file, "auto", "auto", asyncio.get_running_loop())
    except NotHere as error:
        return [(False, "loaded", str(error), "get the file again, or another one, if it is not what you expect")]
    except Unfit as error:
        return [(False, "markers", str(error), "choose a base model that was trained to infill")]
    loaded = f"by {engine.model.device}, window {engine.model.window:,} tokens"
    replies: asyncio.Queue[Piece | End | Failure] = asyncio.Queue()
    engine.submit(HOLE, replies.put_nowait)
    said = [await replies.get()]
    while isinstance(said[-1], Piece):
        said.append(await replies.get())
    await engine.tokens.close()
    engine.close()
    return [(True, "loaded", loaded, ""), _filled(said)]


def _filled(said: list[Piece | End | Failure]) -> Finding:
    if isinstance(said[-1], Failure):
        return False, "a hole", said[-1].message, "choose a base model that was trained to infill"
    text = "".join(piece.text for piece in said if isinstance(piece, Piece))
    advice = "" if text.strip() else "an instruct model, perhaps: infilling wants a base model"
    return bool(text.strip()), "a hole", f"def add(a, b): return … is filled with {text!r}", advice


def main(arguments: list[str]) -> int:
    """Prints the findings; the exit status is 0 even if some are bad."""
    logging.disable(logging.WARNING)
    found: list[Finding] = []
    try:
        for one in findings(arguments[0]):
            found.append(one)
            if not one[0]:
                break
    except Exception as error:  # noqa: BLE001  whatever is wrong with the files, it is the finding
        found.append(
            (False, "model", f"{type(error).__name__}: {error}", "see the message; `--model starter` always works")
        )
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
