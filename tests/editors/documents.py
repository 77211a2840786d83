"""The documents that the tests of every editor open, and where the cursor goes in them."""

from __future__ import annotations

MARK = "‸"
"""The cursor's place."""
SAVE = """import json


def save_names(path, names):
    with open(path, "w") as f:
        json.dump(names, f)


def save_ages(path, ages):
    with open(path, "w") as f:
        json.dump(ages, f)


def save_data(path, data):
    with open(path, "w") as f:
        ‸


def load(path):
    with open(path) as f:
        return json.load(f)
"""
"""Where `jso` leads to `json.dump(data, f)`."""
DUMP = "        json.dump(data, f)"
"""The line that the model completes there."""
STACK = """package stack

type Stack struct {
	items []int
}

func (s *Stack) Push(item int) {
	s.items = append(s.items, item)
}

func (s *Stack) Pop() int ‸
}
"""
"""Where `{` and a line break lead to a block of several lines."""
STACK_UNCLOSED = STACK.removesuffix("}\n")
"""The same for an editor that closes the bracket itself."""
