"""`python -P -m inference.examine MODEL`: whether a model is what it should be, from its files to an answer.

For `fimble doctor --model`: one JSON list of [whether it is well, what was looked at, what was found, what to do].
"""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from inference import memory, starter
from inference.tokens import Tokens
from inference.weights import Loaded, find, load
from inference.wire import End, Failure, FimRequest, Piece, Stops

Finding = tuple[bool, str, str, str]

HASHED = 4 * 2**30
"""Bytes of a file up to which its hash is checked, where the hub's cache knows it."""
TRICKY = "def f(x):\n\treturn  x  # é 漢字 😀 <｜fim▁hole｜> <|fim_prefix|> </s>\r\n    \n"
HOLE = FimRequest("def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n", stops=Stops(max_tokens=24, end_of_line=True))
CLOSE = 0.02
"""Relative error of bfloat16 or int8 logits against float32 that rounding explains."""


def findings(name: str) -> Iterator[Finding]:
    """All checks; the first that fails ends them, as the later ones need what it looked at."""
    folder = starter.FOLDER if name == "starter" else find(name)
    if name == "starter":
        starter.verify()
        yield True, "hashes", f"each of {len(starter.SHA256)} files has the sha256 that was shipped", ""
    else:
        yield files(folder)
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


def files(folder: Path) -> Finding:
    """Whether each file of weights is there, as long as its header says, and what its hash says."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(cast(dict[str, str], json.loads(index.read_text("utf-8"))["weight_map"]).values()))
    else:
        names = [file.name for file in folder.glob("*.safetensors")]
    again = f"get it again: `fimble setup --model {folder.name}`, or copy the folder anew"
    if not names:
        return False, "weights", f"{folder} holds no *.safetensors", again
    hashed = 0
    for file in (folder / name for name in names):
        if not file.is_file():
            return False, "weights", f"{file} is missing", again
        size, blob = file.stat().st_size, file.resolve().name
        with file.open("rb") as opened:
            head = int.from_bytes(opened.read(8), "little")
            if head > size - 8:
                return False, "weights", f"{file} is cut off within its header ({size:,} bytes)", again
            fields: dict[str, Any] = json.loads(opened.read(head))
            ends = [value["data_offsets"][1] for key, value in fields.items() if key != "__metadata__"]
            whole = 8 + head + max(ends, default=0)
            if size != whole:
                return False, "weights", f"{file} has {size:,} bytes, its header says {whole:,}", again
            if len(blob) == 64 and size <= HASHED:  # the hub's cache names files by their sha256
                opened.seek(0)
                hashed += 1
                if hashlib.file_digest(opened, "sha256").hexdigest() != blob:
                    return False, "weights", f"{file} is damaged: its sha256 is not {blob[:12]}…", again
    return True, "weights", f"{len(names)} files as long as their headers say, {hashed} with the hub's sha256", ""


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
    ours = loaded.model.forward([(sequence, len(ids), len(ids))]).cpu()
    loaded.model.end(sequence, keep=False)
    with torch.inference_mode():
        expected = theirs.eval()(torch.tensor([ids])).logits[0].float()
    error = float((ours - expected).norm() / expected.norm())
    same = int((ours.argmax(-1) == expected.argmax(-1)).sum())
    found = f"{error:.1e} from transformers' in float32, the same likeliest token at {same} of {len(ids)} places"
    return error < CLOSE, "logits", found, "" if error < CLOSE else "report it with `fimble doctor`'s output"


def hole(loaded: Loaded) -> Finding:
    """What the model puts into a hole that has one likely answer."""
    from inference.engine import Engine

    engine = Engine(loaded.model, loaded.tokens, loaded.markers, loaded.no_infilling)
    replies: queue.Queue[Piece | End | Failure] = queue.Queue()
    engine.submit(HOLE, replies.put)
    text = ""
    while isinstance(message := replies.get(), Piece):
        text += message.text
    engine.close()
    if isinstance(message, Failure):
        return False, "a hole", message.message, "choose a base model that was trained to infill"
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
