"""Runs a program that a model has written, and says whether it passed.

A seat belt, not a jail: its own process group in a folder of its own, without the environment, with limits on time,
memory, files and processes, and no network. A program that means harm may still read what this user can read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from functools import lru_cache
from typing import Literal

Verdict = Literal["passed", "failed", "timeout", "memory"]

SECONDS = 3.0
"""Of processor time, and half as much again by the clock, with room for a busy machine."""
MEMORY = 1 << 30
"""Bytes of address space."""
_GUARD = """
import ctypes, os, resource, sys
seconds, memory = int(sys.argv[1]), int(sys.argv[2])
for limit, value in (
    (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 1 << 20),
    (resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_CORE, 0),
):
    try:
        resource.setrlimit(limit, (value, value))
    except (OSError, ValueError):
        pass  # macOS has no limit on the address space
try:
    ctypes.CDLL(None).unshare(0x10000000 | 0x40000000)  # a user and a network namespace of its own, on Linux
except (OSError, AttributeError):
    pass
source = sys.stdin.read()
def guard(event, arguments):
    if event.startswith(("socket.", "subprocess.", "ctypes.", "pty.", "shutil.rmtree", "webbrowser.")) or event in (
        "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.kill", "os.killpg",
        "signal.pthread_kill",
    ):
        raise PermissionError(f"{event} is not allowed here")
sys.addaudithook(guard)
try:
    exec(compile(source, "answer", "exec"), {"__name__": "__main__"})
except MemoryError:
    os._exit(77)
except SystemExit:
    os._exit(1)  # a program that ends itself has not been through its tests
except BaseException:
    os._exit(1)
os._exit(0)
"""
_OUT_OF_MEMORY = 77


@lru_cache(65536)
def run(program: str, seconds: float = SECONDS, memory: int = MEMORY) -> Verdict:
    """Runs a Python program to its end. Its output goes nowhere."""
    command = [sys.executable, "-I", "-B", "-c", _GUARD, str(max(1, round(seconds))), str(memory)]
    with tempfile.TemporaryDirectory(prefix="fimble-run-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={"HOME": folder, "PATH": os.defpath},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.communicate(program.encode("utf-8", "replace"), timeout=1.5 * seconds + 5)
        except subprocess.TimeoutExpired:
            return "timeout"
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode == 0:
        return "passed"
    if process.returncode == -signal.SIGXCPU or process.returncode == -signal.SIGKILL:
        return "timeout"
    return "memory" if process.returncode == _OUT_OF_MEMORY else "failed"
