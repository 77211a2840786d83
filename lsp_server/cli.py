"""The command line. Only the command imports this: the language server starts without typer and rich."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import attrs
import typer
from rich.console import Console
from rich.markup import escape

from evaluation.cli import app as eval_app
from inference import keys
from inference.endpoint import WorkerSettings, clean_environment, endpoint, llamacpp_missing
from inference.version import VERSION
from lsp_server.settings import Settings, resolve
from lsp_server.text import Position

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_show_locals=False,
    help="Self-hosted code completion. Without a command: the language server on standard input and output.",
)
worker_app = typer.Typer(no_args_is_help=True, help="The resident model worker that every editor shares.")
app.add_typer(worker_app, name="worker")
app.add_typer(eval_app, name="eval")

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

# Empty: as the user's settings file says, which `fimble setup` writes; else the default of `Settings`.
Model = Annotated[
    str,
    typer.Option(
        help="starter, a model folder, a GGUF file, or a hub id in the cache", show_default="your settings' model"
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps", show_default="your settings'")]
Dtype = Annotated[
    str,
    typer.Option(
        help="auto, float32, bfloat16, float16, or int8 (weights of DeepSeek-V2 models)", show_default="your settings'"
    ),
]
IdleMinutes = Annotated[
    float | None, typer.Option(help="exit after this long without a request; 0: never", show_default="60")
]
Transport = Annotated[str, typer.Option(help="auto, unix or tcp (loopback, with a token)", show_default="auto")]


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"fimble {VERSION}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    stdio: Annotated[bool, typer.Option("--stdio", help="serve on standard input and output (the default)")] = False,
    tcp: Annotated[str, typer.Option(metavar="[HOST:]PORT", help="serve one client on a loopback address")] = "",
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """The language server, unless a command follows."""
    if context.invoked_subcommand:
        return
    from lsp_server.serving import serve_stdio, serve_tcp

    if not tcp:
        return serve_stdio()
    host, _, port = tcp.rpartition(":")
    if not port.isdecimal():
        raise typer.BadParameter(f"{tcp!r} is not [HOST:]PORT", param_hint="--tcp")
    try:
        serve_tcp(host or "127.0.0.1", int(port))
    except (ValueError, OSError) as error:
        _give_up(str(error))


@app.command()
def complete(
    place: Annotated[str, typer.Argument(metavar="FILE:LINE:COL", help="line and column from 1; FILE with --markers")],
    model: Model = "",
    device: Device = "",
    dtype: Dtype = "",
    layout: Annotated[str, typer.Option(help="anchored or psm")] = "anchored",
    markers: Annotated[
        bool, typer.Option("--markers", help="FILE has its hole marked, as <|fim▁begin|> … <|fim▁hole|> … <|fim▁end|>")
    ] = False,
) -> None:
    """Prints the completion at a place of a file, and the time of each stage."""
    from lsp_server import show, talk

    file, cursor = (Path(place), Position(0, 0)) if markers else _place(place)
    if layout not in ("anchored", "psm"):
        raise typer.BadParameter("anchored or psm", param_hint="--layout")
    settings = attrs.evolve(chosen_settings(model, device, dtype), layout=layout)
    began = time.perf_counter()
    text = _read(file)
    read_ms = (time.perf_counter() - began) * 1000
    if markers:
        try:
            text, cursor = talk.unmarked(text)
        except ValueError as error:
            _give_up(f"{file}: {error}")
    if cursor.line > text.count("\n"):
        _give_up(f"{file} has {text.count(chr(10)) + 1} lines, not {cursor.line + 1}")
    sys.exit(asyncio.run(show.complete(console, file.resolve().as_uri(), text, cursor, settings, read_ms)))


Temperature = Annotated[float, typer.Option(min=0, max=2, help="0: always the likeliest token")]
MaxTokens = Annotated[int, typer.Option(min=1, help="tokens at most")]


@app.command()
def generate(
    file: Annotated[str, typer.Argument(help="a text to go on from; - reads standard input")],
    model: Model = "",
    device: Device = "",
    dtype: Dtype = "",
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    echo: Annotated[bool, typer.Option("--echo", help="print the file's text before it")] = False,
) -> None:
    """Prints how the model goes on from the end of a file."""
    from lsp_server import talk

    text = sys.stdin.read() if file == "-" else _read(Path(file))
    settings = chosen_settings(model, device, dtype).worker
    sys.exit(asyncio.run(talk.generate(errors, settings, text, max_tokens, temperature, echo)))


@app.command()
def chat(
    message: Annotated[str, typer.Argument(help="one question; without it you talk, line by line")] = "",
    model: Model = "",
    device: Device = "",
    dtype: Dtype = "",
    system: Annotated[str, typer.Option(help="what the model is told before")] = "",
    max_tokens: MaxTokens = 1024,
    temperature: Temperature = 0.0,
) -> None:
    """Talks with an instruct model, by its own chat template."""
    from lsp_server import talk

    settings = chosen_settings(model, device, dtype).worker
    talker = talk.Chat(settings, system, max_tokens, temperature)
    sys.exit(asyncio.run(talker.run(errors, message)))


@app.command()
def demo() -> None:
    """Completes a snippet in each of seven languages with the embedded model, then says how to connect an editor."""
    from lsp_server import show

    sys.exit(asyncio.run(show.demo(console)))


@app.command()
def doctor(model: Model = "", device: Device = "") -> None:
    """Checks all that completions need; every line says what to do. With --model, the model too, to an answer."""
    from lsp_server import doctor as checks

    sys.exit(checks.run(console, chosen_settings(model, device), thorough=bool(model)))


@app.command()
def setup(
    model: Annotated[str, typer.Option(help="a hub id, a folder, or starter", show_default="what is recommended")] = "",
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, int8 …", show_default="what is recommended")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="ask nothing: accept the licence, write the settings")] = False,
) -> None:
    """Recommends a model for this machine, gets it, writes your settings file, prints the lines for your editors."""
    from lsp_server import setup as steps

    sys.exit(steps.run(console, model, dtype, yes))


@app.command()
def stats(
    as_json: Annotated[bool, typer.Option("--json", help="the same as JSON")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="forget everything counted so far")] = False,
) -> None:
    """Shows what was suggested and accepted, and how long it took: counted on this machine, kept on this machine."""
    from lsp_server import metrics
    from lsp_server import stats as figures

    path = endpoint(WorkerSettings()).state / metrics.FILE
    try:
        if reset:
            metrics.reset(path)
        elif as_json:
            console.print_json(data=figures.as_json(metrics.read(path)))
        else:
            console.print(figures.table(metrics.read(path)))
    except (ValueError, OSError) as error:
        _give_up(str(error))


@worker_app.command("run")
def worker_run(
    file: Annotated[str, typer.Argument(metavar="[MODEL]", help="the same as --model", show_default=False)] = "",
    model: Model = "",
    engine: Annotated[
        str, typer.Option(help="torch, or llamacpp for a GGUF file", show_default="by the model's name")
    ] = "",
    device: Device = "",
    dtype: Dtype = "",
    idle_minutes: IdleMinutes = None,
    transport: Transport = "",
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="be reached from other machines too, with a key")
    ] = "",
    key_file: Annotated[
        str, typer.Option(help="where that key lies, or is put, unless FIMBLE_API_KEY has it", show_default="")
    ] = "",
) -> None:
    """Runs a worker in the foreground, until it is stopped or idle; with --listen it does not end by itself."""
    if listen and idle_minutes is None:
        idle_minutes = 0
    settings = _worker_settings(file or model, device, dtype, idle_minutes, transport)
    _check_engine(engine, settings)
    settings = attrs.evolve(
        settings, url="", listen=listen, key_file=str(Path(key_file).absolute()) if key_file else ""
    )
    where = endpoint(settings)
    console.print(f"worker for {where.settings.model}; log: {where.log}", soft_wrap=True)
    if listen:
        try:
            keys.serving(settings.key_file)
        except keys.BadKey as error:
            _give_up(str(error))
        console.print(f"listening on {listen}; its key: {keys.source(settings.key_file)}", soft_wrap=True)
    with subprocess.Popen(where.command(), cwd=where.state, env=clean_environment()) as process:
        try:
            sys.exit(process.wait())
        except KeyboardInterrupt:
            sys.exit(process.wait())


@worker_app.command("start")
def worker_start(
    model: Model = "",
    device: Device = "",
    dtype: Dtype = "",
    idle_minutes: IdleMinutes = None,
    transport: Transport = "",
) -> None:
    """Starts a worker in the background and waits until the model is loaded."""
    from lsp_server import show

    settings = _worker_settings(model, device, dtype, idle_minutes, transport)
    sys.exit(asyncio.run(show.start(console, settings)))


@worker_app.command("stop")
def worker_stop(model: Model = "", transport: Transport = "") -> None:
    """Stops the worker of a model; editors start another when they need one."""
    from lsp_server.backends.worker import WorkerBackend

    settings = attrs.evolve(_worker_settings(model, "", "", 0, transport), url="")
    stopped = asyncio.run(WorkerBackend(settings).stop())
    console.print("stopped" if stopped else f"no worker for {settings.model} is running")


@worker_app.command("status")
def worker_status(model: Model = "", transport: Transport = "") -> None:
    """Shows the worker of a model; exit status 1 if none is running."""
    from lsp_server import show

    sys.exit(asyncio.run(show.status(console, _worker_settings(model, "", "", 0, transport))))


def chosen_settings(model: str = "", device: str = "", dtype: str = "") -> Settings:
    """The user's settings file, and above it what the command line says; another model has none of the file's dtype."""
    from lsp_server import user_settings

    user, problems = user_settings.read()
    settings, unfit = resolve(None, user)
    for problem in problems + unfit:
        errors.print(f"[yellow]fimble:[/yellow] {escape(problem)}", soft_wrap=True)
    if model and model != settings.model:
        settings = attrs.evolve(settings, model=model, dtype="auto", worker_url="", backend="worker")
    said = {name: value for name, value in (("device", device), ("dtype", dtype)) if value}
    return attrs.evolve(settings, **said)


def _worker_settings(model: str, device: str, dtype: str, idle_minutes: float | None, transport: str) -> WorkerSettings:
    if transport not in ("", "auto", "unix", "tcp"):
        raise typer.BadParameter("auto, unix or tcp", param_hint="--transport")
    settings = chosen_settings(model, device, dtype)
    if idle_minutes is not None:
        settings = attrs.evolve(settings, idle_minutes=idle_minutes)
    if transport:
        settings = attrs.evolve(settings, transport=transport)
    return settings.worker


def _check_engine(engine: str, settings: WorkerSettings) -> None:
    if engine not in ("", "torch", "llamacpp"):
        raise typer.BadParameter("torch or llamacpp", param_hint="--engine")
    if engine and settings.is_gguf != (engine == "llamacpp"):
        wanted = "a GGUF file, such as model.gguf" if engine == "llamacpp" else "a folder or hub id, not a GGUF file"
        _give_up(f"the engine {engine} wants {wanted}; the model is {settings.model}")
    if settings.is_gguf and (problem := llamacpp_missing()):
        _give_up(problem)


def _place(place: str) -> tuple[Path, Position]:
    file, line, column = ("", "", "", *place.rsplit(":", 2))[-3:]
    if not (file and line.isdecimal() and column.isdecimal() and int(line) and int(column)):
        raise typer.BadParameter(f"{place!r} is not FILE:LINE:COL (line and column from 1)")
    return Path(file), Position(int(line) - 1, int(column) - 1)


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        _give_up(f"{file} is not UTF-8 (byte {error.start}); convert it, or complete in an editor, which decodes it")
    except OSError as error:
        _give_up(f"{file}: {error.strerror}")


def _give_up(message: str) -> NoReturn:
    errors.print(f"[red]fimble:[/red] {escape(message)}", soft_wrap=True)
    raise typer.Exit(2)
