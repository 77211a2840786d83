"""The Emacs package as its community judges it: compiled, linted, with docstrings; installed by package.el."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.editors.emacs_editor import ROOT, need_emacs

FILES = sorted((ROOT / "editors" / "emacs").glob("*.el"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's files where they may be compiled."""
    need_emacs()
    folder = tmp_path / "fimble"
    folder.mkdir()
    for file in FILES:
        shutil.copy(file, folder)
    return folder


def batch(folder: Path, *arguments: str) -> str:
    """Runs Emacs without a terminal in that folder; what it says, but for Debian's own start-up."""
    done = subprocess.run(
        ["emacs", "-q", "--batch", "-L", ".", *arguments],
        cwd=folder,
        env={**os.environ, "HOME": str(folder.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if line and not line.startswith("Loading /etc/")]
    return "\n".join([*said, *([f"status {done.returncode}"] if done.returncode else [])])


def test_every_file_compiles_without_a_warning(copy: Path) -> None:
    strict = ("--eval", "(setq byte-compile-error-on-warn t)")
    assert batch(copy, *strict, "-f", "batch-byte-compile", *(file.name for file in FILES)) == ""
    assert len([*copy.glob("*.elc")]) == len(FILES)


def test_package_lint_and_checkdoc_have_nothing_to_say(copy: Path) -> None:
    names = [file.name for file in FILES]
    main = ("--eval", '(setq package-lint-main-file "fimble.el")', "-l", "package-lint")
    said = batch(copy, *main, "-f", "package-lint-batch-and-exit", *names).splitlines()
    # Debian's package-lint is older than Emacs 28 and takes any newer one for unreleased.
    known = "This makes the package uninstallable in all released Emacs versions."
    assert [line for line in said if known not in line and not line.startswith("Entering directory")] == ["status 1"]
    quoted = " ".join(f'"{name}"' for name in names)
    assert batch(copy, "--eval", f"(mapc #'checkdoc-file (list {quoted}))") == ""


def test_every_package_names_the_same_address_or_none_that_can_be_owned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    address = project.get("urls", {}).get("Homepage")
    [named] = re.findall("^;; URL: (.*)$", (ROOT / "editors/emacs/fimble.el").read_text("utf-8"), re.MULTILINE)
    assert named == (address or "https://fimble.invalid/")
    assert json.loads((ROOT / "editors/vscode/package.json").read_text("utf-8")).get("homepage") == address


def test_package_el_installs_the_folder(copy: Path) -> None:
    install = f"""(progn
      (require 'package)
      (setq package-user-dir "{copy.parent}/elpa")
      (package-initialize)
      (package-install-file "{copy}"))"""
    batch(copy, "--eval", install)
    use = f"""(progn
      (setq package-user-dir "{copy.parent}/elpa")
      (package-initialize)
      (princ (list (autoloadp (symbol-function 'global-fimble-mode)) (featurep 'fimble)))
      (global-fimble-mode)
      (princ (featurep 'fimble-ghost)))"""
    assert batch(copy.parent, "--eval", use).startswith("(t nil)t")


def test_every_option_and_command_is_in_the_group_and_explained(copy: Path) -> None:
    ask = """(progn
      (require 'fimble)
      (mapatoms (lambda (one)
        (when (and (string-prefix-p "fimble-" (symbol-name one)) (not (string-prefix-p "fimble--" (symbol-name one))))
          (when (and (commandp one) (not (documentation one))) (princ (format "%s has no docstring\n" one)))
          (when (and (custom-variable-p one) (not (eq one 'fimble-mode-hook))
                     (not (assq one (get 'fimble 'custom-group))))
            (princ (format "%s is in another group\n" one)))))))"""
    assert batch(copy, "--eval", ask) == ""
