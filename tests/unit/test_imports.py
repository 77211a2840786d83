"""Who may import what: ARCHITECTURE.md's boundaries, read off the source and off the running processes."""

from __future__ import annotations

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("evaluation", "inference", "lsp_server")
SHARED = {"inference.endpoint", "inference.families", "inference.keys", "inference.version", "inference.wire"}
"""All that the server may know of inference: how to find and start the worker, what crosses to it, and how prompts for
other engines are put together."""


@attrs.frozen
class Import:
    importer: str
    imported: str
    line: int
    when_loaded: bool
    """False inside a function and under TYPE_CHECKING."""

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"

    def is_of(self, *packages: str) -> bool:
        return self.imported.split(".")[0] in packages


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages and its file."""
    found: dict[str, Path] = {}
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imports() -> list[Import]:
    return [found for name in modules() for found in _imports_of(name)]


def _imports_of(name: str) -> Iterator[Import]:
    def walk(node: ast.AST, when_loaded: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, node.lineno, when_loaded)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [_package(name, node.level), node.module]))
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield Import(name, submodule if submodule in modules() else base, node.lineno, when_loaded)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                yield from walk(child, False)
            for child in node.orelse:
                yield from walk(child, when_loaded)
        else:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, when_loaded and not function)

    yield from walk(ast.parse(modules()[name].read_text("utf-8")), True)


def _package(name: str, level: int) -> str:
    """The package that a relative import with `level` dots begins in; "" for an absolute one."""
    if level == 0:
        return ""
    parts = name.split(".")
    inside = parts if modules()[name].name == "__init__.py" else parts[:-1]
    return ".".join(inside[: len(inside) - level + 1])


def test_the_source_is_found() -> None:
    assert {"inference.worker", "inference.models", "lsp_server.server", "lsp_server.backends.worker"} <= set(modules())
    assert Import("inference.worker", "inference.wire", 0, True) in [attrs.evolve(i, line=0) for i in imports()]


def is_of_engines(name: str) -> bool:
    """What asks the engines of others: without torch, and imported late."""
    return name.startswith("inference.remote.")


def test_the_server_knows_only_the_worker_s_address_and_the_wire() -> None:
    assert [
        str(i)
        for i in imports()
        if i.importer.startswith("lsp_server")
        and i.is_of("inference")
        and i.imported not in SHARED
        and not (i.importer == "lsp_server.backends.remote" and is_of_engines(i.imported) and not i.when_loaded)
    ] == []


def test_asking_engines_of_others_needs_no_torch(tmp_path: Path) -> None:
    heavy = {"torch", "transformers", "safetensors"}
    asking = ", ".join(filter(is_of_engines, modules()))
    assert loaded_with(asking, tmp_path) & {*heavy, "tokenizers"} == set()
    assert loaded_with("inference.tokens", tmp_path) & heavy == set()


def test_the_server_never_imports_what_runs_a_model_not_even_late() -> None:
    heavy = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "numpy")
    assert [str(i) for i in imports() if i.importer.startswith("lsp_server") and i.is_of(*heavy)] == []


def test_inference_knows_nothing_of_editors_or_syntax() -> None:
    editing = ("lsp_server", "pygls", "lsprotocol", "tree_sitter")
    grammars = "tree_sitter_"
    assert [
        str(i)
        for i in imports()
        if i.importer.startswith("inference") and (i.is_of(*editing) or i.imported.startswith(grammars))
    ] == []


def test_the_shared_modules_import_no_other_part_of_inference() -> None:
    assert [
        str(i) for i in imports() if i.importer in SHARED and i.is_of("inference") and i.imported not in SHARED
    ] == []


def test_nothing_installed_imports_benchmarks_tests_or_the_command() -> None:
    assert [str(i) for i in imports() if i.is_of("benchmarks", "tests", "training", "fimble")] == []


def test_only_the_command_line_imports_typer_and_rich() -> None:
    allowed = {
        "evaluation.cli",
        "lsp_server.cli",
        "lsp_server.doctor",
        "lsp_server.setup",
        "lsp_server.show",
        "lsp_server.stats",
        "lsp_server.talk",
    }
    assert [str(i) for i in imports() if i.is_of("typer", "rich") and i.importer not in allowed] == []


def test_only_the_command_line_imports_the_evaluation() -> None:
    measuring = [i for i in imports() if i.is_of("evaluation") and not i.importer.startswith("evaluation")]
    assert [str(i) for i in measuring if i.importer != "lsp_server.cli"] == []


def test_the_evaluation_knows_of_inference_only_what_runs_no_model() -> None:
    light = {*SHARED, "inference.stops"}
    assert [
        str(i)
        for i in imports()
        if i.importer.startswith("evaluation") and i.is_of("inference", "torch") and i.imported not in light
    ] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_load_in_an_order(package: str) -> None:
    needs = {name: set[str]() for name in modules() if name.split(".")[0] == package}
    for i in imports():
        if i.when_loaded and i.importer in needs and i.imported in needs:
            needs[i.importer].add(i.imported)
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"these import each other: {' → '.join(error.args[1])}")


def loaded_with(module: str, cwd: Path) -> set[str]:
    """The top-level names in sys.modules of a new process that has imported `module`."""
    code = f"import json, sys, {module}; print(json.dumps([name.split('.')[0] for name in sys.modules]))"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=cwd, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_server_starts_without_torch_and_without_what_it_needs_later(tmp_path: Path) -> None:
    late = {"torch", "transformers", "tokenizers", "numpy", "typer", "rich", "aiohttp", "huggingface_hub"}
    assert loaded_with("lsp_server.server", tmp_path) & late == set()


def test_the_worker_listens_before_torch_is_imported(tmp_path: Path) -> None:
    assert loaded_with("inference.worker", tmp_path) & {"torch", "transformers", "tokenizers", "numpy"} == set()


def test_the_wire_costs_its_readers_no_server_and_no_model(tmp_path: Path) -> None:
    heavy = {"torch", "transformers", "tokenizers", "numpy", "aiohttp", "pygls"}
    for module in sorted(SHARED):
        assert loaded_with(module, tmp_path) & heavy == set(), module


def test_the_starter_is_loaded_without_transformers(tmp_path: Path) -> None:
    code = (
        "import sys; from inference.weights import load; load('starter', 'cpu', 'auto', lambda *_: None); "
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
