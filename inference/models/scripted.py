"""Runs of small operations as one call.

A step for one token is some thousand operations on a few hundred values each. From Python each costs several times its
work, as the interpreter's own code leaves the processor's cache at every matrix that is read through it. TorchScript
runs the same operations without Python; where a Python or torch has it no longer, they run as they are written.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def scripted(function: Callable[P, R]) -> Callable[P, R]:
    """`function` compiled to TorchScript, or itself."""
    return cast(Callable[P, R], _compiled(function))


def scripted_module(module: torch.nn.Module) -> Callable[..., Any]:
    """The same for a module's `forward`."""
    return cast(Callable[..., Any], _compiled(module.eval()))


def _compiled(what: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated since torch 2.9
        try:
            # Only the calls are wanted: on a GPU it would also compile kernels of its own, while a request waits, and
            # its guesses at shapes cost more to check than they bring.
            cast(Any, torch)._C._jit_set_texpr_fuser_enabled(False)
            cast(Any, torch)._C._jit_set_profiling_executor(False)
            return cast(Any, torch.jit).script(what)
        except Exception as error:  # noqa: BLE001  whatever a later torch says to this, the function itself will do
            log.warning("%s runs without TorchScript, and slower: %s", what, error)
            return what
