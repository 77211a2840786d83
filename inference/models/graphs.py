"""Steps as CUDA graphs: a few integers in, a token a row out, the host free to look away meanwhile."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import attrs
import torch
from cachetools import LRUCache
from torch import Tensor

from inference.models.deepseek_v2 import DeepseekV2
from inference.models.slots import Slots
from inference.models.step_tiles import MASKS, MOST, SIZES
from inference.models.steps import Steps
from inference.prefix_cache import common_prefix

SEQUENCES = 64
"""Sequences whose slots stand in the device's table; more go without graphs."""
RING = 3
"""Steps whose inputs and outputs may be on their way: one runs, one waits behind it, one is being made."""


class Running(Protocol):
    """What is needed of a sequence."""

    ids: list[int]
    slots: Slots
    allowed: Tensor | None
    """Ids among which its next token must be; None: all."""
    row: int
    """Of the table; -1 as long as it has none."""
    written: int
    """How many of its slots stand there."""


@attrs.define(eq=False)
class Best:
    """The likeliest token of each output of a step, and its log-probability among those allowed."""

    tokens: Tensor  # int32, pinned
    logprobs: Tensor  # float32, pinned
    rows: list[int]  # of the outputs
    allowed: list[Tensor | None]
    done: torch.cuda.Event

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, output: int) -> tuple[int, float]:
        """Waits for the step."""
        self.done.synchronize()
        row = self.rows[output]
        return int(self.tokens[row]), float(self.logprobs[row])


class Graphs:
    """Runs steps of up to `MOST` rows of one model over one pool; one thread calls it."""

    def __init__(self, model: DeepseekV2, pool: Tensor, window: int, spare: int):
        """`spare`: a slot of the pool that no token has, for rows that only fill a step up."""
        self._asked = torch.zeros(RING, 6, MOST, dtype=torch.int32).pin_memory()
        self._answered = torch.zeros(RING, 2, MOST, dtype=torch.int32).pin_memory()
        self._steps = Steps(model, pool, SEQUENCES + 1, window, asked=self._asked, answered=self._answered)
        self._spare = spare
        self._free = list(range(SEQUENCES))
        self._left: dict[
            int, list[int]
        ] = {}  # what stands in rows of the table that are free: the slots of one that ended
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._masks: LRUCache[int, tuple[int, Tensor]] = LRUCache(MASKS)
        self._turn = 0
        self._done: list[torch.cuda.Event | None] = [None] * RING
        self._outputs: list[int] = []
        self.costs: list[float] = []

    def prepare(self, progress: Callable[[float], None]) -> None:
        """Compiles the kernels (the first time on a machine: a minute), captures a graph a size and times it.

        `costs` is then the milliseconds of a step of 1, 2, 3 … rows.
        """
        steps = self._steps
        with ThreadPoolExecutor(8) as pool:  # the compiler leaves Python alone for most of its time
            for done, _ in enumerate(pool.map(steps.compile, (1, 2, 32, 64))):
                progress(done / 4 * 0.7)
        self._asked[:, 2:4] = torch.tensor([[self._spare], [SEQUENCES]], dtype=torch.int32)
        self._asked[:, 4] = -1
        timed: dict[int, float] = {}
        for done, size in enumerate(SIZES):
            self._asked[:, 5, 0] = size
            self._graphs[size] = self._capture(size)
            timed[size] = self._time(self._graphs[size])
            progress(0.7 + 0.3 * done / len(SIZES))
        steps.turn.zero_()
        self.costs = [timed[_size(rows)] for rows in range(1, MOST + 1)]

    def _capture(self, size: int) -> torch.cuda.CUDAGraph:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._steps.run(size)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._steps.run(size)
        return graph

    def _time(self, graph: torch.cuda.CUDAGraph) -> float:
        graph.replay()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        for event in events:
            event.record()
            graph.replay()
        torch.cuda.synchronize()
        return min(a.elapsed_time(b) for a, b in itertools.pairwise(events))

    def takes(self, rows: Sequence[tuple[Any, int, int]]) -> bool:
        """Whether a step can compute these (sequence, tokens, outputs)."""
        without = sum(sequence.row < 0 for sequence, _, _ in rows)
        return sum(count for _, count, _ in rows) <= MOST and without <= len(self._free)

    def forward(self, rows: Sequence[tuple[Running, int, int]]) -> tuple[Tensor, Best]:
        """Starts a step for the newest tokens of each sequence, whose slots are allocated.

        Returns the logits of each one's last `outputs` rows, float32 [outputs, vocab], and the best of them.
        """
        self._outputs = []
        tokens: list[list[int]] = []
        allowed: list[Tensor | None] = []
        for sequence, count, outputs in rows:
            length = len(sequence.slots)
            self._place(sequence, length - count)
            for position in range(length - count, length):
                mask = self._mask(sequence.allowed) if position == length - 1 else -1
                slot = sequence.slots.all[position]
                tokens.append([sequence.ids[position], position, slot, sequence.row, mask])
            self._outputs += range(len(tokens) - outputs, len(tokens))
            allowed += [None] * (outputs - 1) + [sequence.allowed]
            sequence.written = length
        best = self._start(tokens, allowed)
        logits = self._steps.logits
        if len(self._outputs) == len(tokens):
            return logits[: len(tokens)].clone(), best
        ends = itertools.accumulate(count for _, count, _ in rows)
        return torch.cat([logits[end - outputs : end] for end, (_, _, outputs) in zip(ends, rows, strict=True)]), best

    def ahead(self, sequences: Sequence[Running]) -> Best:
        """Starts the step after the one in hand: each sequence's next token is what that one's output chooses.

        `sequences`: as many as that step had outputs, in that order, each with a slot for the token.
        """
        tokens: list[list[int]] = []
        for sequence, output in zip(sequences, self._outputs, strict=True):
            position = len(sequence.slots) - 1
            tokens.append([-1 - output, position, sequence.slots.all[position], sequence.row, -1])
            sequence.written = position + 1
        self._outputs = list(range(len(tokens)))
        return self._start(tokens, [None] * len(tokens))

    def _start(self, tokens: list[list[int]], allowed: list[Tensor | None]) -> Best:
        turn, live = self._turn, len(tokens)
        if before := self._done[turn]:
            before.synchronize()
        size = _size(live)
        tokens += [[0, 0, self._spare, SEQUENCES, -1]] * (size - live)
        asked, answered = self._asked[turn], self._answered[turn]
        asked[:5, :size] = torch.tensor(tokens, dtype=torch.int32).T
        asked[5, 0] = live
        self._graphs[size].replay()
        self._turn = (turn + 1) % RING  # as the device counts: nothing fails from here on
        done = self._done[turn] = torch.cuda.Event()
        done.record()
        return Best(answered[0], answered[1].view(torch.float32), self._outputs, allowed, done)

    def _place(self, sequence: Running, length: int) -> None:
        """Sees to it that the first `length` of a sequence's slots stand in the table."""
        if sequence.row < 0:
            # The one that ended last is most often the keystroke before: all but a few of its slots are this one's too.
            sequence.row = self._free.pop()
            before = self._left.pop(sequence.row, [])
            sequence.written = common_prefix(before, sequence.slots.all, min(len(before), length))
        if sequence.written < length:
            missing = array("i", sequence.slots.all[sequence.written : length])
            table = self._steps.table
            table[sequence.row, sequence.written : length] = torch.frombuffer(missing, dtype=torch.int32).to(
                table.device
            )

    def _mask(self, allowed: Tensor | None) -> int:
        """Where a mask stands on the device; -1 if all is allowed."""
        if allowed is None:
            return -1
        if (found := self._masks.get(id(allowed))) is not None:
            return found[0]
        used = {number for number, _ in self._masks.values()}
        free = next((i for i in range(MASKS) if i not in used), -1)
        number = free if free >= 0 else self._masks.popitem()[1][0]
        self._masks[id(allowed)] = number, allowed
        self._steps.masks[number] = 0
        self._steps.masks[number, allowed] = 1
        return number

    def release(self, sequence: Running) -> None:
        """The sequence needs its row of the table no more."""
        if sequence.row >= 0:
            self._left[sequence.row] = sequence.slots.all[: sequence.written]
            self._free.append(sequence.row)
            sequence.row = -1


def _size(rows: int) -> int:
    return next(size for size in SIZES if size >= rows)
