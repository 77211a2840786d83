"""The files that are replayed: single members of pinned packages, and some of this project's own.

Packages come from their registries through the registries' own clients (`pip download`, `npm pack`,
`apt-get source --download-only` with lists of its own, without root), once, into a cache outside the tree. Only the
member that is replayed is read from an archive, and its SHA-256 is pinned, so that everybody types the same text.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import attrs
import platformdirs

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 300
"""Longest time that a registry's client may take."""
DEBIAN = "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main"


Registry = Literal["pypi", "sdist", "npm", "debian"]


class Unavailable(Exception):
    """A file that can't be had now; the message says why."""


@attrs.frozen
class Package:
    """One version of one package. `pypi` is a wheel, `sdist` PyPI's source archive."""

    registry: Registry
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.registry} {self.name} {self.version}"


@attrs.frozen
class Source:
    """A file by the end of its path in a package, or by its path in this project (then without a pinned hash)."""

    language: str
    path: str
    package: Package | None = None
    sha256: str = ""

    @property
    def name(self) -> str:
        """The short name, for tables and the command line."""
        return self.path.rsplit("/", 1)[-1]


@attrs.frozen
class SourceFile:
    """A file as it will be typed."""

    name: str
    language: str
    """As in LSP."""
    text: str
    origin: str
    sha256: str


SOURCES = (
    Source(
        "python",
        "tomlkit/parser.py",
        Package("pypi", "tomlkit", "0.13.2"),
        "20d43d09b9a6c2ae9f1d55996bbde34d05e2d17b622dc925753eb3298e49b78c",
    ),
    Source(
        "typescript",
        "package/src/types/observablemap.ts",
        Package("npm", "mobx", "6.13.5"),
        "6ac97b4933158a3383578da3a552e62a9bcc5ad994c986043aec2b92e718317f",
    ),
    Source(
        "go",
        "/flag.go",
        Package("debian", "golang-github-spf13-pflag", "1.0.6~git20210604-d5e0c0615ace-1"),
        "833764e1d34c01f1fe6f2c59cb356128990b237d335808a2de8f37a3926ab1e4",
    ),
    Source(
        "rust",
        "/src/lib.rs",
        Package("sdist", "tiktoken", "0.8.0"),
        "748a32613432488e389eae4adaa967e0a29062256fbe0302a17c98be46eb0dde",
    ),
    Source(
        "java",
        "package/src/android/CameraLauncher.java",
        Package("npm", "cordova-plugin-camera", "7.0.0"),
        "96b48f5be88a97521685df05a80210effa363ae9f8121e96b731f5f01192f932",
    ),
    Source("python", "lsp_server/documents.py"),
    Source("lua", "editors/neovim/lua/fimble/server.lua"),
)


def default_cache() -> Path:
    """The folder of fetched files, outside the tree."""
    return Path(platformdirs.user_cache_dir("fimble-benchmarks"))


def load(names: list[str], cache: Path, *, offline: bool) -> tuple[list[SourceFile], list[str]]:
    """The files of those names (all if none is given), and what could not be had. Raises `ValueError` for a name."""
    if unknown := set(names) - {source.name for source in SOURCES}:
        raise ValueError(f"no file {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in SOURCES)}")
    files: list[SourceFile] = []
    problems: list[str] = []
    for source in SOURCES:
        if (names and source.name not in names) or (offline and source.package):
            continue
        try:
            files.append(_read(source, cache))
        except Unavailable as error:
            problems.append(f"{source.name} ({source.language}) is left out: {error}")
    return files, problems


def _read(source: Source, cache: Path) -> SourceFile:
    if source.package is None:
        data, origin = (ROOT / source.path).read_bytes(), "this project"
    else:
        kept = cache / "files" / f"{source.sha256}-{source.name}"
        if not kept.is_file():
            found = _fetch(source, source.package, cache / "packages")
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(found)
        data, origin = kept.read_bytes(), str(source.package)
    sha256 = hashlib.sha256(data).hexdigest()
    if source.package and sha256 != source.sha256:
        raise Unavailable(f"its SHA-256 is {sha256}, not the pinned one ({origin})")
    return SourceFile(source.name, source.language, data.decode(), origin, sha256)


def _fetch(source: Source, package: Package, folder: Path) -> bytes:
    """The member's bytes, out of the package's archives."""
    into = folder / f"{package.registry}-{package.name}-{package.version.replace('~', '_')}"
    into.mkdir(parents=True, exist_ok=True)
    FETCHERS[package.registry](package, into)
    for archive in sorted(into.iterdir()):
        for data in _members(archive, source.path):
            return data
    raise Unavailable(f"{package} holds no {source.path}")


def _pip(package: Package, into: Path) -> None:
    kind = ["--only-binary", ":all:"] if package.registry == "pypi" else ["--no-binary", package.name]
    _run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *kind, f"{package.name}=={package.version}"], into
    )


def _npm(package: Package, into: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not on the PATH; install Node.js")
    _run([npm, "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"], into)


def _apt(package: Package, into: Path) -> None:
    apt = shutil.which("apt-get")
    if apt is None:
        raise Unavailable("apt-get is not on the PATH: this is no Debian")
    home = into.parent / "apt"
    for name in ("lists/partial", "archives/partial"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "sources.list").write_text(DEBIAN + "\n", "utf-8")
    options = {
        "Dir::Etc::sourcelist": home / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": home / "lists",
        "Dir::Cache": home,
        "Dir::Cache::archives": home / "archives",
    }
    command = [apt, "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    _run([*command, "update"], into)
    _run([*command, "source", "--download-only", f"{package.name}={package.version}"], into)


FETCHERS: dict[str, Callable[[Package, Path], None]] = {"pypi": _pip, "sdist": _pip, "npm": _npm, "debian": _apt}


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{Path(command[0]).name} failed: {error}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["it said nothing"]
        raise Unavailable(f"{Path(command[0]).name} failed ({done.returncode}): {said[0]}")


def _members(archive: Path, path: str) -> Iterator[bytes]:
    """The members of an archive whose path ends with `path`; nothing is unpacked."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield from (opened.read(name) for name in opened.namelist() if f"/{name}".endswith(path))
    elif ".tar" in archive.name or archive.suffix == ".tgz":
        with tarfile.open(archive) as opened:
            for member in opened:
                if member.isfile() and member.name.endswith(path) and (content := opened.extractfile(member)):
                    yield content.read()
