"""The packages in which holes are made: pinned, fetched once through their registries' own clients, never unpacked.

The starter's second training run read none of them; caddy, gin, jsoup, ripgrep, fastify and redux-toolkit are among the
repositories that were held out of it (see its model card, also for what is not known of the first run).
"""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import attrs

from benchmarks.sources import FETCHERS, Package, Registry, Unavailable
from evaluation.places import Source, pick, usable
from evaluation.tasks import Task

_ENDINGS = {
    "python": (".py",),
    "javascript": (".js", ".cjs", ".mjs"),
    "typescript": (".ts",),
    "java": (".java",),
    "go": (".go",),
    "rust": (".rs",),
}
_TABLE = """
python pypi CherryPy 18.10.0 129e444b9a63cea4e765481b156376f1cfe319e64caaaec2485636532373b298
python pypi asyncssh 2.19.0 bb82ac30ff0cb4393fbaf1114e606ad7a4f13d6c4bdaed423c033ee26b455228
python pypi beets 2.2.0 6dddec32933278e83e4555aaba8587f125b4becd97c71bac81fe317264a0d01c
python pypi buildbot 4.2.1 25c4d827e2b398560923774f929bc5f580c83259c79fa38f0c3ac88ae7b16436
python pypi khal 0.11.3 99e14fe5677a7546ca397c4da143e58f822f30190333330af26a48beec43a718
javascript npm fastify 5.2.0 a6af4cafbf1b90929245096e4e7761c6eea796133171b4d2b8b33c0c8726c0a3
javascript npm koa 2.15.3 23b9a334640c93f61306e1941dc87b6001b0273230482fb9138243de870727f1
javascript npm nodemailer 6.9.16 2b06f251c370e362e1805baf33db5d5bdb1a2dadaf1eaf5c054b25dd76c7d270
javascript npm ws 8.18.0 a08221f2851472c944ca0178d89a9888c7f43fbd9998afc8a7ec6fe417c4ca20
typescript npm @reduxjs/toolkit 2.5.0 73fd6e95612c85870a4bb1967420f62364f760689ee02a41214d1b3fb23e95fc
typescript npm @apollo/server 4.11.2 3fa8b06221f60fdd37405ee9e66e89ea5bd3d4f3a9d2f29e98a3658565694b68
typescript npm immer 10.1.1 946cc79684ad1e080b09d4f2da14247b272aa667f3aaa100f35846148689f08f
typescript npm mobx 6.13.5 b85a7f765065c081724a7c49e91f59950151607b2f1c5a77c8ec4231f7129a1b
java debian jsoup 1.15.3-1 052511f0be47511f9b2a17d44fc1eccc4b5373e77cc5a3221e34b6af437e1e2e
java debian libjdom2-java 2.0.6.1-1 358bf84e3d2af4942d348eacfe59a90dbee6eaabfd258ca714e61f73d92a0d27
java debian libjoda-time-java 2.10.14-1 600ab9a000b7c8ab4cb24e0fbd5c5ee6c4be46b97c55f90004df3cd1c56bd0b5
go debian caddy 2.6.2-5 b6f92ee37462851e125c2c725a2a7fefa045a46478eeb4e751f24c9a827e8668
go debian golang-github-gin-gonic-gin 1.8.1-1 9f6a9a6c2b96c323902d8ee1728152bafdf1894130554a93af5d3f1807c0403b
go debian golang-github-gorilla-mux 1.8.0-1 ea2639259d2ce6f402636655e91eb93ba69c139e3cbf80b044ee393ada53757b
rust debian rust-ripgrep 13.0.0-4 f37c9d2c2bc7e00bd2653e13771397b94e452583da9b9494eabef627618d64bf
rust sdist cryptography 41.0.7 13f93ce9bea8016c253b34afc6bd6a75993e5c40672ed5405a9c832f0d4a00bc
rust sdist rustworkx 0.15.1 0e0cc86599f979285b2ab9c357276f3272f3fcb3b2df5651a6bf9704c570d4c1
rust sdist tokenizers 0.13.3 2e546dbb68b623008a5442353137fbb0123d311a6d7ba52f2667c8862a75af2e
"""


@attrs.frozen
class Lot:
    """A package, the language that is taken from it, and the SHA-256 of its archive."""

    language: str
    package: Package
    sha256: str


def _lot(line: str) -> Lot:
    language, registry, name, version, sha256 = line.split()
    return Lot(language, Package(cast(Registry, registry), name, version), sha256)


LOTS = tuple(map(_lot, _TABLE.strip().splitlines()))
LANGUAGES = tuple(dict.fromkeys(lot.language for lot in LOTS))


def holes(count: int, seed: int, cache: Path, say: Callable[[str], None] = lambda _: None) -> list[Task]:
    """`count` holes in each language, spread over its packages. Raises `Unavailable`."""
    tasks: list[Task] = []
    for language in LANGUAGES:
        lots = [lot for lot in LOTS if lot.language == language]
        for number, lot in enumerate(lots):
            say(str(lot.package))
            wanted = count * (number + 1) // len(lots) - count * number // len(lots)
            tasks += pick(files(lot, cache), wanted, seed)
    return tasks


def files(lot: Lot, cache: Path) -> list[Source]:
    """The package's files of that language in which holes can be made. Raises `Unavailable`."""
    sources = (_source(lot, name, data) for name, data in _members(_archive(lot, cache)))
    return [source for source in sources if source]


def _source(lot: Lot, name: str, data: bytes) -> Source | None:
    if not name.endswith(_ENDINGS[lot.language]) or name.endswith((".d.ts", ".min.js")):
        return None
    try:
        source = usable(f"{lot.package.name}/{name}", data.decode())
    except UnicodeDecodeError:
        return None
    return source if source and source.language == lot.language else None


def _archive(lot: Lot, cache: Path) -> Path:
    package = lot.package
    into = cache / "packages" / f"{package.registry}-{package.name.replace('/', '_')}-{package.version}"
    found = _pinned(into, lot.sha256)
    if found is None:
        into.mkdir(parents=True, exist_ok=True)
        FETCHERS[package.registry](package, into)
        found = _pinned(into, lot.sha256)
    if found is None:
        raise Unavailable(f"{package} brought no archive with the pinned SHA-256 {lot.sha256}")
    return found


def _pinned(folder: Path, sha256: str) -> Path | None:
    for path in sorted(folder.glob("*")):
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return path
    return None


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the members, in the order of their names."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield from ((name, opened.read(name)) for name in sorted(opened.namelist()))
        return
    with tarfile.open(archive) as opened:
        for member in sorted((m for m in opened if m.isfile()), key=lambda m: m.name):
            if content := opened.extractfile(member):
                yield member.name, content.read()
