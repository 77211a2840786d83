"""What `fimble demo` completes: one small hole in each of several languages. Written for this project."""

from __future__ import annotations

import attrs


@attrs.frozen
class Snippet:
    """A text with a mark where the cursor stands."""

    language: str
    language_id: str
    text: str
    cursor: str = "‸"


SNIPPETS = (
    Snippet(
        "Python",
        "python",
        '''import json
from pathlib import Path


def load_settings(path):
    """Read the settings from a JSON file, or return an empty dict."""
    if not path.exists():
        return {}
    with open(path) as f:
        ret‸


def save_settings(path, settings):
    with open(path, "w") as f:
        json.dump(settings, f)
''',
    ),
    Snippet(
        "TypeScript",
        "typescript",
        """interface User {
  id: number;
  name: string;
  email: string;
}

export function findUser(users: User[], id: number): User | undefined {
  return users.find(‸);
}

export function findByEmail(users: User[], email: string): User | undefined {
  return users.find((user) => user.email === email);
}
""",
    ),
    Snippet(
        "Go",
        "go",
        """package stack

import "errors"

type Stack struct {
	items []int
}

func (s *Stack) Push(item int) {
	s.items = append(s.items, item)
}

func (s *Stack) Pop() (int, error) {
	if len(s.items) == 0 {
		return 0, err‸
	}
	item := s.items[len(s.items)-1]
	s.items = s.items[:len(s.items)-1]
	return item, nil
}
""",
    ),
    Snippet(
        "Rust",
        "rust",
        """pub struct Counter {
    count: u32,
}

impl Counter {
    pub fn new() -> Self {
        Counter { cou‸ }
    }

    pub fn increment(&mut self) {
        self.count += 1;
    }

    pub fn count(&self) -> u32 {
        self.count
    }
}
""",
    ),
    Snippet(
        "Java",
        "java",
        """import java.util.ArrayList;
import java.util.List;

public class Names {
    private final List<String> names = new ArrayList<>();

    public void add(String name) {
        this.na‸
    }

    public int size() {
        return this.names.size();
    }
}
""",
    ),
    Snippet(
        "C",
        "c",
        """#include <stddef.h>

struct node {
    int value;
    struct node *next;
};

size_t list_length(const struct node *head) {
    size_t length = 0;
    while (head != NULL) {
        length++;
        head = ‸
    }
    return length;
}
""",
    ),
    Snippet(
        "JavaScript",
        "javascript",
        """const express = require('express');
const app = express();

app.get('/health', (req, res) => {
  res.json({ status: 'ok' });
});

app.get('/users/:id', (req, res) => {
  const id = req.par‸
  res.json({ id });
});

app.listen(3000);
""",
    ),
)
