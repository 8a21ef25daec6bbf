"""What weakens an installation: secrets that are too short are refused, credentials on an open wire are warned of."""

from typing import Any

import pytest
from pydantic import ValidationError

import config
from dispatcher.cli import accounts
from dispatcher.cli.session import settings
from dispatcher.domain.attempt import KEY_LENGTH
from dispatcher.domain.errors import UsageError
from dispatcher.domain.postback import is_of_request
from dispatcher.domain.results import CallReport, Disposition, Outcome


@pytest.mark.parametrize(("variable", "least"), [("DISPATCHER_SECRET_KEY", 32), ("DISPATCHER_API_KEY", 16)])
def test_a_secret_has_a_least_length(monkeypatch: pytest.MonkeyPatch, variable: str, least: int) -> None:
    monkeypatch.setenv(variable, "s" * least)
    assert config.load()
    monkeypatch.setenv(variable, "s" * (least - 1))
    with pytest.raises(ValidationError, match=f"at least {least} characters, not {least - 1}") as refused:
        config.load()
    assert "sss" not in str(refused.value)
    with pytest.raises(UsageError, match=rf"^{variable}: must have .* openssl rand -hex 32$"):
        settings()


def test_without_one_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_SECRET_KEY", "")
    assert config.load().secret_key is None


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"base_url": "http://api.example.com/v2"}, "http://api.example.com/v2"),
        ({"base_url": "http://192.0.2.7:8080"}, "http://192.0.2.7:8080"),
        ({"option": ["pull_url=HTTP://pull.example.com/x"]}, "HTTP://pull.example.com/x"),
        ({"base_url": "https://api.example.com"}, None),
        ({"base_url": "http://localhost:8460"}, None),
        ({"base_url": "http://127.0.0.2/v2"}, None),
        ({"base_url": "http://[::1]:8460"}, None),
        ({"cps": 5.0}, None),
    ],
)
def test_credentials_on_an_open_wire_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], warned: str | None
) -> None:
    monkeypatch.setattr(accounts, "call", lambda verb: None)
    accounts.edit("main", **changes)
    shown = capsys.readouterr()
    assert "account 'main' changed" in shown.out
    assert "warning" not in shown.out
    assert (f"warning: {warned} is plain http" in shown.err) if warned else (shown.err == "")


def test_the_address_of_one_call_vouches_for_that_call_only() -> None:
    key, other = "0" * KEY_LENGTH, "1" * KEY_LENGTH
    seen = CallReport(outcome=Outcome(disposition=Disposition.IN_FLIGHT), key=key)
    assert is_of_request(seen, key)
    assert not is_of_request(seen, other)
    for account_wide in (None, "b" + "0" * 14):  # the name of several is a digest: see is_of_request
        assert is_of_request(seen, account_wide)
