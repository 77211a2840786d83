"""Settings: resolved in one place, what does not fit is named and keeps its default."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from lsp_server.settings import FIELDS, Settings, resolve


def test_nothing_means_the_defaults() -> None:
    assert resolve(None) == (Settings(), [])
    assert resolve({}) == (Settings(), [])


def test_nested_and_dotted_names_mean_the_same() -> None:
    nested, _ = resolve({"context": {"prefixTokens": 200}, "worker": {"idleMinutes": 5}})
    dotted, _ = resolve({"context.prefixTokens": 200, "worker.idleMinutes": 5})
    assert nested == dotted == Settings(prefix_tokens=200, idle_minutes=5.0)


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ("on", "object"),
        ({"enabled": "yes"}, "fimble.enabled"),
        ({"layout": "spm"}, "anchored, psm"),
        ({"context": {"prefixTokens": 3}}, "64 to 65536"),
        ({"context": {"prefixTokens": 100.5}}, "whole number"),
        ({"maxLines": True}, "fimble.maxLines"),
        ({"disabledLanguages": "python"}, "list"),
        ({"colour": "red"}, "no setting `fimble.colour`"),
        ({"model": ""}, "fimble.model"),
    ],
)
def test_what_does_not_fit_is_named_and_keeps_its_default(section: Any, named: str) -> None:
    settings, problems = resolve(section)
    assert settings == Settings()
    assert len(problems) == 1
    assert named in problems[0]


def test_null_is_unset() -> None:
    assert resolve({"model": None, "worker": {"idleMinutes": None}}) == (Settings(), [])


def test_each_default_can_be_set_as_editors_write_it() -> None:
    defaults = attrs.asdict(Settings())
    written = {name: json.loads(json.dumps(defaults[field])) for name, (field, _) in FIELDS.items()}
    assert resolve(written) == (Settings(), [])


def test_one_bad_value_does_not_spoil_the_others() -> None:
    settings, problems = resolve({"layout": "spm", "model": "/models/x"})
    assert settings.model == "/models/x"
    assert len(problems) == 1


def test_every_field_can_be_set_by_some_name() -> None:
    assert {field for field, _ in FIELDS.values()} == {field.name for field in attrs.fields(Settings)}
