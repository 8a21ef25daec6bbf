"""Postbacks: what is said about a person or an account is heard before any result, and the audit says who said it."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.capability import CallbackAuth, Capabilities, Dedupe, LookupBy
from dispatcher.domain.dnc import DncAdd
from dispatcher.domain.errors import PayloadError
from dispatcher.domain.postback import Postback, PostbackState
from dispatcher.domain.provider_body import Body, ParsedBody, ProviderNotice
from dispatcher.domain.results import CallReport, Channel, Disposition, Outcome
from dispatcher.domain.states import State
from dispatcher.flow.postback import settle_group
from tests.factories import number
from tests.unit.flow.virtual import services

ACCOUNT: Any = SimpleNamespace(id=1, name="main")
ABLE = Capabilities(
    dedupe=Dedupe.NONE, lookup=LookupBy.OUR_KEY, own_retries=False, callback_auth=CallbackAuth.ADDRESS, most_calls=1
)


@dataclass
class Store:
    """Matches nothing, and notes what is written."""

    done: list[Any] = field(default_factory=list)

    async def match(self, account_id: int, reports: list[CallReport]) -> list[None]:
        return [None] * len(reports)

    match_by_number = match

    async def dnc_add(self, new: DncAdd, over: tuple[str, ...] = (), *, actor: AuditActor) -> None:
        self.done.append((new.list, new.numbers, actor))

    async def stop_account(self, account_id: int, reason: str) -> bool:
        self.done.append(("stop", reason))
        return True

    async def slow_account(self, account_id: int, retry_after: object) -> None:
        self.done.append("slow")

    async def settle(self, updates: Any, fractions: Any, known: Any, marks: Any) -> list[None]:
        return []


def settled(parsed: ParsedBody | Exception, tries: int = 1) -> tuple[list[Any], PostbackState]:
    """What was written for one postback that says this, and what became of it."""

    def read(body: Body) -> ParsedBody:
        if isinstance(parsed, Exception):
            raise parsed
        return parsed

    store = Store()
    providers = SimpleNamespace(parser=lambda account: SimpleNamespace(read=read), capabilities=lambda account: ABLE)
    postback = Postback(id=1, account_id=1, content_type="", body=b"", tries=tries)
    (mark,) = asyncio.run(settle_group(ACCOUNT, [postback], services(store=store, providers=providers)))
    return store.done, mark.state


def test_a_reply_that_revokes_consent_is_listed_in_the_name_of_the_person() -> None:
    said = ParsedBody(notices=(ProviderNotice(type="opt-out", opt_out=number(1)),))
    assert settled(said) == ([("replies", (number(1),), AuditActor.CALLED_PERSON)], PostbackState.IGNORED)


def test_a_refusal_of_a_call_that_is_not_ours_is_listed_in_the_name_of_the_provider() -> None:
    refused = Outcome(disposition=Disposition.SCREENED, state=State.DNC)
    said = ParsedBody(reports=(CallReport(outcome=refused, to=number(1)),))
    assert settled(said) == ([("provider", (number(1),), AuditActor.PROVIDER)], PostbackState.UNMATCHED)


@pytest.mark.parametrize(
    ("disposition", "done"),
    [(Disposition.ACCOUNT_STOP, [("stop", "REFUSED")]), (Disposition.THROTTLE, ["slow"]), (Disposition.IN_FLIGHT, [])],
)
def test_what_is_said_about_the_account_holds_once(disposition: Disposition, done: list[Any]) -> None:
    said = ParsedBody(notices=(ProviderNotice(type="account", outcome=Outcome(disposition=disposition)),))
    assert settled(said) == (done, PostbackState.IGNORED)
    assert settled(said, tries=2) == ([], PostbackState.IGNORED)


@pytest.mark.parametrize("error", [PayloadError("line 1"), KeyError("ours")])
def test_what_cannot_be_read_is_kept_for_a_person(error: Exception) -> None:
    assert settled(error) == ([], PostbackState.QUARANTINED)


@pytest.mark.parametrize("changes", [{"inbound": True}, {"channel": Channel.TEXT}])
def test_calls_that_cannot_be_ours_are_ignored(changes: dict[str, Any]) -> None:
    report = CallReport(outcome=Outcome(disposition=Disposition.IN_FLIGHT), to=number(1), **changes)
    assert settled(ParsedBody(reports=(report,))) == ([], PostbackState.IGNORED)


def test_a_call_that_is_not_known_comes_again_and_is_given_up_in_the_end() -> None:
    report = CallReport(outcome=Outcome(disposition=Disposition.IN_FLIGHT), to=number(1))
    assert settled(ParsedBody(reports=(report,)), tries=10)[1] is PostbackState.UNMATCHED
    assert settled(ParsedBody(reports=(report,)), tries=11)[1] is PostbackState.DEAD
