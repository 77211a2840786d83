"""The wire: what is malformed is refused with its place, what is well formed comes back as it was."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import wire
from inference.wire import End, FimRequest, Health, Piece, Sampling, Stops, Timing

REQUESTS = st.builds(
    FimRequest,
    prefix=st.text(),
    suffix=st.text(),
    typed=st.text() | st.just("\ud800"),
    stops=st.builds(Stops, max_tokens=st.integers(0, 100), closers=st.lists(st.text(max_size=3)).map(tuple)),
    n=st.integers(1, 16),
    sampling=st.builds(Sampling, temperature=st.floats(0, 2), seed=st.none() | st.integers()),
    priority=st.sampled_from(["interactive", "background"]),
    reuse=st.booleans(),
)


@given(REQUESTS)
def test_a_request_survives_the_wire(request: FimRequest) -> None:
    data = wire.dumps(request)
    assert b"\n" not in data
    assert wire.loads(data, FimRequest) == request


@pytest.mark.parametrize(
    "reply",
    [
        Piece("é\n", -0.5, 2, 1, ((" x", -1.0),)),
        End("eos", 10, 8, 2, 3, Timing(0.1, 2.0, 3.5)),
        Health("ready", "1", "m", "f", 7),
    ],
)
def test_a_reply_survives_the_wire(reply: Piece | End | Health) -> None:
    assert wire.loads(wire.dumps(reply), type(reply)) == reply


def test_a_newer_worker_may_say_more() -> None:
    fields = json.loads(wire.dumps(Health("ready", "1", "m", "f", 7)))
    assert wire.loads(json.dumps({**fields, "temperature_of_the_gpu": 60}), Health).pid == 7


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("", "Expecting value"),
        ("null", "object"),
        ("[]", "object"),
        ('"x"', "object"),
        ("{}", "prefix"),
        ('{"prefix": null}', "prefix"),
        ('{"prefix": 1}', "prefix"),
        ('{"prefix": "a", "typed": ["b"]}', "typed"),
        ('{"prefix": "a", "surprise": 1}', "surprise"),
        ('{"prefix": "a", "n": 0}', "n"),
        ('{"prefix": "a", "n": true}', "n"),
        ('{"prefix": "a", "n": 1.5}', "n"),
        ('{"prefix": "a", "priority": "urgent"}', "priority"),
        ('{"prefix": "a", "stops": {"max_tokens": -1}}', "max_tokens"),
        ('{"prefix": "a", "stops": {"max_tokens": "9"}}', "max_tokens"),
        ('{"prefix": "a", "stops": {"closers": "}"}}', "closers"),
        ('{"prefix": "a", "sampling": {"temperature": NaN}}', "temperature"),
        ('{"prefix": "a", "heal": "no"}', "heal"),
    ],
)
def test_a_malformed_request_is_refused_by_name(body: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        wire.loads(body, FimRequest)
