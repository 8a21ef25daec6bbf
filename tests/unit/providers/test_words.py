"""Every word of the five vendor documents has its row, and no row contradicts itself."""

import json
from pathlib import Path

import pytest

from dispatcher.domain.provider_body import Body, BodyKind
from dispatcher.domain.results import Disposition, Result, read_result
from dispatcher.domain.states import FINAL, State
from dispatcher.providers.callfire.outcomes import CODES as CALLFIRE
from dispatcher.providers.callfire.outcomes import TRIGGERS
from dispatcher.providers.callfire.parser import CallFireParser
from dispatcher.providers.code_table import UNKNOWN, CodeMapping, CodeTable
from dispatcher.providers.fortytwo.outcomes import CODES as FORTYTWO
from dispatcher.providers.phonon.outcomes import CODES as PHONON

D = Disposition
WORDS = json.loads((Path(__file__).parents[2] / "data/words.json").read_text())
TABLES: dict[str, CodeTable] = {
    "000 results page": CALLFIRE,
    "001 fortytwo": FORTYTWO,
    "002 notifications": CALLFIRE,
    "003 get call": CALLFIRE,
    "004 phonon": PHONON,
}
COUNTS = {
    "000 results page": {"state": 8, "result": 15, "http": 5},
    "001 fortytwo": {"api": 39, "http": 8, "status": 1, "cause": 2},
    "002 notifications": {"trigger": 7, "format": 3, "state": 1, "result": 3, "broadcast": 1, "root": 3},
    "003 get call": {"state": 8, "result": 14},
    "004 phonon": {"flow": 39, "connection": 16, "sms": 8, "email": 13, "agent": 44},
}
EVERY = [(document, table, word) for document, tables in WORDS.items() for table in tables for word in tables[table]]
NEVER_ASKED = {"MASK_ALLOCATED", "MASK_NOT_AVAILABLE", "INVALID_VALIDITY", "REQUIRE_MASKED_NUMBER"}
"""Of an API that we do not use: were they ever seen, they would be unknown."""


def test_the_documents_were_extracted_whole() -> None:
    assert {document: {t: len(w) for t, w in tables.items()} for document, tables in WORDS.items()} == COUNTS


def is_missing(document: str, table: str, word: str) -> bool:
    if table == "trigger":
        return word not in TRIGGERS
    if table == "root":
        return word not in TRIGGERS.values()
    if table == "format":
        return word not in ("XML", "JSON", "EMAIL")  # e-mails are for people: nothing reads them
    if document.startswith("00") and table == "result":
        result = read_result(word)
        return result is None or not CALLFIRE.knows("result", result)
    return not TABLES[document].knows(table, word)


def test_no_word_is_missing() -> None:
    assert [entry for entry in EVERY if is_missing(*entry)] == []


@pytest.mark.parametrize("meanings", [CALLFIRE, FORTYTWO, PHONON], ids=["callfire", "fortytwo", "phonon"])
def test_no_row_contradicts_itself(meanings: CodeTable) -> None:
    for (table, word), mapping in meanings.rows.items():
        assert _is_sound(table, mapping), (table, word, mapping)


def _is_sound(table: str, mapping: CodeMapping) -> bool:
    disposition, state, result = mapping[:3]
    about_calls = table not in ("http", "broadcast", "batch", "account", "agent")
    match disposition:
        case D.FINAL_SUCCESS:
            return state is State.FINISHED and result is not None
        case D.FINAL_FAILURE:
            return state is State.TIMEOUT or (state is State.FINISHED and result is not None)
        case D.RETRYABLE:
            return state is State.FINISHED and result is not None
        case D.PROVIDER_RETRY:
            return state is State.CALLBACK
        case D.SCREENED:
            return state in FINAL and result is not None
        case D.THROTTLE | D.ACCOUNT_STOP | D.CONFIG_STOP if about_calls:
            return (state, result) == (State.READY, Result.UNDIALED)
        case D.IN_FLIGHT if about_calls:
            return state in (None, State.READY, State.SELECTED)
    return state is None or disposition in (D.HOLD, D.UNKNOWN) or not about_calls


def test_words_collide_between_tables_and_mean_another_thing_in_each() -> None:
    assert PHONON.of("sms", "FAILED").result is Result.CARRIER_ERROR
    assert PHONON.of("connection", "Failed").result is Result.INTERNAL_ERROR
    assert PHONON.of("flow", "REJECTED").result is Result.INTERNAL_ERROR
    assert PHONON.of("email", "Rejected").result is Result.CARRIER_ERROR
    assert PHONON.of("connection", "Connected").result is Result.LA
    assert PHONON.of("agent", "Connected").result is None
    assert (PHONON.of("flow", "PAUSE").disposition, PHONON.of("agent", "PAUSED").disposition) == (D.HOLD, D.IN_FLIGHT)
    assert PHONON.of("flow", "PAUSED") is UNKNOWN


def test_what_belongs_to_the_masking_api_is_unknown_here() -> None:
    assert {w for w in WORDS["004 phonon"]["flow"] if PHONON.of("flow", w) is UNKNOWN} == NEVER_ASKED


@pytest.mark.parametrize("word", WORDS["000 results page"]["result"])
def test_a_long_name_is_read_in_a_body(word: str) -> None:
    body = {"CallFinished": {"Call": {"@id": "1", "State": "FINISHED", "FinalResult": word}}}
    (seen,) = CallFireParser().read(Body(kind=BodyKind.POSTBACK, data=json.dumps(body).encode())).reports
    assert seen.outcome.result is read_result(word) is not None
