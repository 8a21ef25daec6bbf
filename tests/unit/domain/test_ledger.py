"""The oracle must see what it is for."""

from dispatcher.domain.ledger import LedgerLine, check_ledger
from dispatcher.domain.report import AttemptKey


def line(key: str, at: float, number: str = "+1", result: str = "LA", provider_retry: bool = False) -> LedgerLine:
    return LedgerLine(key=key, number=number, at=at, result=result, provider_retry=provider_retry)


def attempt(key: str, permitted: bool = True, was_dialled: bool = True) -> AttemptKey:
    return AttemptKey(key=key, permitted=permitted, was_dialled=was_dialled, fate="final-success")


def test_a_clean_history() -> None:
    lines = [line("a", 0, result="BUSY"), line("a", 5, provider_retry=True), line("b", 9), line("c", 9, "+2")]
    check = check_ledger(lines, [attempt("a"), attempt("b"), attempt("c"), attempt("d", was_dialled=False)])
    assert check.is_clean
    assert (check.dials, check.provider_retries, check.worst_second) == (3, 1, 2)
    assert check.undialled == {"final-success": 1}
    assert check.waits == {"BUSY": (1, 9, 9)}


def test_everything_that_must_not_be() -> None:
    lines = [line("a", 0), line("a", 1), line("x", 2, "+2"), line("i", 3, "+3")]
    check = check_ledger(lines, [attempt("a"), attempt("i", permitted=False), attempt("m")])
    assert not check.is_clean
    assert check.doubled_keys == ("a",)
    assert check.after_final == ("a",)
    assert check.unknown_keys == ("i", "x")
    assert check.missing == ("m",)
