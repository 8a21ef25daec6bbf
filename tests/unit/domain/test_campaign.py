"""Campaign files: what they may say, and what they are told when they say it wrongly."""

import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import config
import dispatcher
from dispatcher.domain.campaign import Policy, read_policy, read_span
from dispatcher.domain.errors import CampaignFileError
from dispatcher.domain.results import Result
from tests.factories import FILE, make_policy


def refusal(**changes: Any) -> str:
    with pytest.raises(CampaignFileError) as refused:
        make_policy(**changes)
    return str(refused.value)


@pytest.mark.parametrize("path", ["config/campaigns/example.toml", "examples/demo.toml"])
def test_the_examples_are_right(path: str) -> None:
    root = Path(dispatcher.__file__).parents[1]
    assert read_policy(tomllib.loads((root / path).read_text())).name


def test_the_example_shows_the_defaults() -> None:
    example = tomllib.loads((Path(config.__file__).parent / "campaigns/example.toml").read_text())
    example.pop("window")
    least = {key: example[key] for key in ("name", "account", "regions_allowed", "caller_ids", "content")}
    full, defaults = read_policy(example), read_policy(least)
    assert full.retry.policy == defaults.retry.policy
    assert full.model_dump(exclude={"retry"}) == defaults.model_dump(exclude={"retry"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "name: "),
        ({"regions_allowed": []}, "regions_allowed: "),
        ({"regions_allowed": ["Mars"]}, "'Mars' is no region"),
        ({"region": "us"}, "region: 'us' is no region"),
        ({"caller_ids": ["2025550199"]}, "write caller ids in E.164"),
        ({"cps": 0}, "cps: "),
        ({"speed": 3}, "speed: is no known key"),
        ({"content": {}}, "content: say what people hear: text, audio_url or flow"),
        (
            {"retry": {"LA": {"delays": ["5m"]}}},
            "'LA' is no result that can be dialled again; allowed: ",
        ),
        ({"retry": {"BUSY": {"delays": []}}}, "retry.BUSY.delays: "),
        ({"retry": {"BUSY": {"delays": ["soon"]}}}, "write a length of time like"),
        ({"retry": {"max_dials": 21}}, "retry.max_dials: "),
        ({"timeouts": {"unknown": "0s"}}, "timeouts.unknown: must be longer than 0"),
        ({"window": {"timezone": "Mars/Olympus"}}, "no such time zone"),
        ({"window": {"timezone": "UTC", "days": "never"}}, "no weekday"),
        ({"window": {"timezone": "UTC", "open": "9"}}, "write a time of day"),
        ({"window": {"timezone": "UTC", "open": "20:00", "close": "09:00"}}, "must be later than open"),
        ({"channel": "fax"}, "channel: is none of the allowed words: voice, text"),
        ({"caller_ids": []}, "caller_ids: must hold at least one value"),
        ({"content": {"text": "Hello {name, your"}}, "a brace is not closed"),
        ({"content": {"text": "Hello {}"}}, "a brace is not closed or holds no column's name"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(**changes)


def test_every_mistake_is_named_at_once() -> None:
    text = refusal(cps=-1, region="xx")
    assert "cps: " in text
    assert "region: " in text


def test_a_span_has_an_end() -> None:
    for text in ("99999999999d", "4000d"):
        with pytest.raises(ValueError, match="at most"):
            read_span(text)


@pytest.mark.parametrize("key", ["name", "account", "regions_allowed", "caller_ids", "content"])
def test_required_keys(key: str) -> None:
    with pytest.raises(CampaignFileError, match=f"{key}: is required"):
        read_policy({k: v for k, v in FILE.items() if k != key})


def test_long_names_of_results_are_understood() -> None:
    policy = make_policy(retry={"no answer": {"delays": ["1h"]}}).retry.policy
    assert policy.rules[Result.NO_ANS].delays == (timedelta(hours=1),)
    assert Result.BUSY in policy.rules


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("48h", 172800), ("1h30m", 5400), ("1.5s", 1.5), ("250ms", 0.25)]
)
def test_spans(text: str, seconds: float) -> None:
    assert read_span(text) == timedelta(seconds=seconds)


@given(st.timedeltas(timedelta(microseconds=1), timedelta(days=300)), st.integers(1, 20))
def test_a_policy_survives_being_stored(span: timedelta, dials: int) -> None:
    policy = make_policy(
        timeouts={"unknown": span, "take_over": span}, retry={"max_dials": dials, "BUSY": {"delays": [span]}}
    )
    assert Policy.model_validate(policy.model_dump(mode="json")) == policy


def test_the_text_takes_its_variables() -> None:
    content = make_policy(content={"text": "Hi {name}, see you on {day}"}).content
    assert content.variables == {"name", "day"}
    assert content.render({"name": "Ada {day}", "day": "Monday"}) == "Hi Ada {day}, see you on Monday"
