"""The one door, and the recorder that brings news to it in groups."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dispatcher.domain.attempt import write_key
from dispatcher.domain.errors import ServerError
from dispatcher.domain.postback import PostbackMark, PostbackState
from dispatcher.domain.results import AttemptUpdate, Disposition, Outcome, UpdateSource
from dispatcher.domain.steps import AttemptContext, Decision
from dispatcher.flow.settle import FLUSH_S, FULL, GROUP, KEEP_TRYING_S, LONGEST_FLUSH_S, Recorder, settle
from tests.factories import make_policy
from tests.unit.flow.virtual import ACCEPTED, EPOCH, now, permitted, play, services

NEAR_S = 1e-3
A = PostbackState.APPLIED


def told(i: int) -> AttemptUpdate:
    return AttemptUpdate(write_key(i), ACCEPTED, UpdateSource.SUBMIT)


@dataclass
class Book:
    """A store that settles, with some news that it cannot write, and that is away for a time."""

    bad: frozenset[str] = frozenset()
    away_until: float = 0.0
    fails_from: int = 10**9
    """From this message on it is away."""
    groups: list[tuple[float, list[str]]] = field(default_factory=list)
    """What was written, and when."""
    marks: list[tuple[int, PostbackMark]] = field(default_factory=list)
    """What was marked, and after how many written news."""
    known: dict[str, AttemptContext] = field(default_factory=dict)
    messages: int = 0

    async def settle(
        self,
        news: Sequence[AttemptUpdate],
        draws: Sequence[float],
        known: Mapping[str, AttemptContext] | None = None,
        marks: Sequence[PostbackMark] = (),
    ) -> list[Decision]:
        self.messages += 1
        if now() < self.away_until or self.messages >= self.fails_from:
            raise ServerError("away")
        keys = [item.key for item in news]
        assert len(draws) == len(news) <= GROUP
        if self.bad & {*keys, *[key for mark in marks for key in mark.keys]}:
            raise ValueError("cannot be written")
        self.groups.append((now(), keys))
        self.known |= known or {}
        self.marks += [(len(self.written), mark) for mark in marks]
        step = SimpleNamespace(step=None)
        return [cast(Decision, SimpleNamespace(key=key, outcome=ACCEPTED, **vars(step))) for key in keys]

    @property
    def written(self) -> list[str]:
        return [key for _, keys in self.groups for key in keys]

    def settled_by(self, *news: AttemptUpdate, marks: Sequence[PostbackMark] = ()) -> list[str]:
        decisions = play(settle(1, news, services(store=self), marks=marks))
        return [decision.key for decision in decisions]


class TestSettle:
    def test_groups_are_as_large_as_one_message_may_be(self) -> None:
        book, news = Book(), [told(i) for i in range(2 * GROUP + 1)]
        assert book.settled_by(*news) == [n.key for n in news]
        assert [len(keys) for _, keys in book.groups] == [GROUP, GROUP, 1]

    @pytest.mark.parametrize("bad", [(0,), (6,), (3, 4), (0, 6)])
    def test_a_bad_news_does_not_block_the_others(self, bad: tuple[int, ...]) -> None:
        book, news = Book(frozenset(write_key(i) for i in bad)), [told(i) for i in range(7)]
        good = [n.key for n in news if n.key not in book.bad]
        assert book.settled_by(*news) == good
        assert book.written == good

    def test_of_a_large_group_few_messages_find_the_bad_one(self) -> None:
        book, news = Book(frozenset([write_key(77)])), [told(i) for i in range(GROUP)]
        assert len(book.settled_by(*news)) == GROUP - 1
        assert book.messages < 25

    def test_the_postback_of_a_bad_news_is_kept_for_a_person_and_the_others_are_over(self) -> None:
        book, news = Book(frozenset([write_key(2)])), [told(i) for i in range(4)]
        marks = [PostbackMark(i, A, keys=(news[i].key,)) for i in range(4)]
        marks.append(PostbackMark(9, A, keys=(news[2].key, news[3].key)))
        marks.append(PostbackMark(10, PostbackState.IGNORED))
        book.settled_by(*news, marks=marks)
        states = {mark.id: mark.state for _, mark in book.marks}
        kept = PostbackState.QUARANTINED
        assert states == {0: A, 1: A, 2: kept, 3: A, 9: kept, 10: PostbackState.IGNORED}
        assert all(after == 3 for after, _ in book.marks)

    def test_postbacks_are_marked_when_all_groups_are_written(self) -> None:
        book, news = Book(), [told(i) for i in range(GROUP + 10)]
        mark = PostbackMark(1, A, keys=(news[0].key, news[-1].key))
        book.settled_by(*news, marks=[mark])
        assert book.marks == [(GROUP + 10, replace(mark, keys=(news[-1].key,)))]  # the others are written

    @pytest.mark.parametrize("fails_from", [1, 2, 3])
    def test_postbacks_are_not_marked_when_a_group_is_not_written(self, fails_from: int) -> None:
        book, news = Book(fails_from=fails_from), [told(i) for i in range(2 * GROUP + 1)]
        with pytest.raises(ServerError):
            book.settled_by(*news, marks=[PostbackMark(1, A, keys=(news[0].key,))])
        assert book.marks == []
        assert len(book.written) == GROUP * (fails_from - 1)

    def test_a_server_that_goes_away_while_the_bad_one_is_looked_for_is_no_bad_news(self) -> None:
        book, news = Book(frozenset([write_key(3)]), fails_from=3), [told(i) for i in range(8)]
        with pytest.raises(ServerError):
            book.settled_by(*news, marks=[PostbackMark(1, A, keys=(news[0].key,))])
        assert book.marks == []

    def test_the_postback_of_a_bad_news_is_kept_whichever_group_it_is_in(self) -> None:
        book, news = Book(frozenset([write_key(2)])), [told(i) for i in range(GROUP + 10)]
        book.settled_by(*news, marks=[PostbackMark(2, A, keys=(news[2].key,))])
        assert [mark.state for _, mark in book.marks] == [PostbackState.QUARANTINED]

    def test_marks_without_news_are_written(self) -> None:
        book, mark = Book(), PostbackMark(1, PostbackState.UNMATCHED, wait_s=1.0)
        assert book.settled_by(marks=[mark]) == []
        assert book.marks == [(0, mark)]


class Diary:
    """A recorder at work."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.recorder = Recorder(1, services(store=book))
        self.running = asyncio.ensure_future(self.recorder.run())

    async def finish(self) -> None:
        self.recorder.close()
        await self.running


class TestRecorder:
    @pytest.mark.parametrize("at", [0.5, 0.511, 0.529])
    def test_a_lone_news_is_written_at_once(self, at: float) -> None:
        async def history() -> None:
            diary = Diary(Book())
            await asyncio.sleep(at)
            diary.recorder.add(told(1))
            await asyncio.sleep(1)
            ((written_at, keys),) = diary.book.groups
            assert keys == [told(1).key]
            assert at <= written_at <= at + FLUSH_S + NEAR_S

        play(history())

    @pytest.mark.parametrize("rate", [10, 20, 60, 300, 2000])
    def test_no_news_waits_longer_than_the_longest_flush(self, rate: int) -> None:
        async def history() -> None:
            diary, added = Diary(Book()), {}
            for i in range(2 * rate):
                diary.recorder.add(told(i))
                added[told(i).key] = now()
                await asyncio.sleep(1 / rate)
            await diary.finish()
            waits = [at - added[key] for at, keys in diary.book.groups for key in keys]
            assert len(waits) == 2 * rate
            assert (
                max(waits) <= (FLUSH_S if rate <= 20 else LONGEST_FLUSH_S + FLUSH_S) + NEAR_S
            )  # a lone one is soon written

        play(history())

    @pytest.mark.parametrize(("rate", "most_a_second"), [(1000, 1 / LONGEST_FLUSH_S + 1), (20, 21)])
    def test_many_news_are_written_in_groups_the_busier_the_larger(self, rate: int, most_a_second: float) -> None:
        async def history() -> None:
            diary = Diary(Book())
            for i in range(3 * rate):
                diary.recorder.add(told(i))
                await asyncio.sleep(1 / rate)
            await diary.finish()
            groups = diary.book.groups
            assert diary.book.written == [told(i).key for i in range(3 * rate)]
            assert len(groups) <= 3 * most_a_second
            for (at, keys), (then, _) in pairwise(groups[:-1]):
                wait = LONGEST_FLUSH_S if len(keys) >= FULL else FLUSH_S
                assert then - at >= wait - NEAR_S
                assert then - at <= LONGEST_FLUSH_S + FLUSH_S + NEAR_S

        play(history())

    def test_no_group_is_larger_than_one_message_may_be(self) -> None:
        async def history() -> None:
            diary = Diary(Book())
            for i in range(2 * GROUP + 7):
                diary.recorder.add(told(i))
            await diary.finish()
            assert [len(keys) for _, keys in diary.book.groups] == [GROUP, GROUP, 7]
            assert diary.recorder.outcomes == {Disposition.IN_FLIGHT: 2 * GROUP + 7}

        play(history())

    def test_what_cannot_be_written_yet_is_tried_again_and_nothing_is_lost(self) -> None:
        async def history() -> None:
            diary = Diary(Book(away_until=KEEP_TRYING_S - 1))
            for i in range(KEEP_TRYING_S - 2):
                diary.recorder.add(told(i))
                await asyncio.sleep(1)
            await diary.finish()
            assert diary.book.written == [told(i).key for i in range(KEEP_TRYING_S - 2)]
            assert diary.book.groups[0][0] <= KEEP_TRYING_S - 1 + 0.5 + NEAR_S

        play(history())

    def test_a_recorder_gives_up_in_time_and_writes_what_comes_after(self) -> None:
        async def history() -> None:
            diary = Diary(Book(away_until=KEEP_TRYING_S + 5))
            diary.recorder.add(told(1))
            await asyncio.sleep(KEEP_TRYING_S + 3)
            assert diary.book.messages == pytest.approx(2 * KEEP_TRYING_S, abs=4)  # and not once more since
            await asyncio.sleep(5)
            diary.recorder.add(told(2))
            await diary.finish()
            assert diary.book.written == [told(2).key]

        play(history())

    def test_a_new_trouble_has_its_own_time(self) -> None:
        async def history() -> None:
            diary = Diary(Book(away_until=15))
            diary.recorder.add(told(1))
            await asyncio.sleep(20)
            diary.book.away_until = 35
            diary.recorder.add(told(2))
            await asyncio.sleep(20)
            await diary.finish()
            assert diary.book.written == [told(1).key, told(2).key]

        play(history())

    def test_situations_that_are_known_are_passed_on_also_when_it_is_tried_again(self) -> None:
        async def history(away_until: float) -> set[str]:
            diary, row = Diary(Book(away_until=away_until)), permitted(1)
            diary.recorder.add(AttemptUpdate(row.key, ACCEPTED, UpdateSource.SUBMIT), row.context(make_policy(), EPOCH))
            diary.recorder.add(told(2))
            await diary.finish()
            assert diary.book.written == [row.key, told(2).key]
            return set(diary.book.known)

        assert play(history(0.0)) == {permitted(1).key}
        assert play(history(1.0)) in (set(), {permitted(1).key})  # read anew, or known still

    def test_it_ends_when_it_is_closed_and_everything_is_written(self) -> None:
        async def history() -> None:
            diary = Diary(Book(away_until=3))
            diary.recorder.add(told(1))
            diary.recorder.close()
            await asyncio.sleep(2)
            assert not diary.running.done()
            await diary.running
            assert diary.book.written == [told(1).key]

        play(history())

    def test_a_bad_news_does_not_keep_the_recorder_from_its_work(self) -> None:
        async def history(*bad: int) -> list[str]:
            diary = Diary(Book(frozenset(write_key(i) for i in bad)))
            for i in range(5):
                diary.recorder.add(told(i))
                await asyncio.sleep(0.3)
            await diary.finish()
            return diary.book.written

        assert play(history(0, 3)) == [told(i).key for i in (1, 2, 4)]


def test_what_concerns_the_account_is_told_before_anything_is_written() -> None:
    order: list[str] = []

    class Store(Book):
        async def stop_account(self, account_id: int, reason: str) -> bool:
            order.append(f"stop {len(self.written)}")
            return True

        async def slow_account(self, account_id: int, wait: Any) -> None:
            order.append(f"slow {len(self.written)}")

    outcomes = [Outcome(disposition=Disposition.ACCOUNT_STOP), Outcome(disposition=Disposition.THROTTLE)]
    store = Store()
    store.settled_by(*[AttemptUpdate(write_key(i), outcome, UpdateSource.SUBMIT) for i, outcome in enumerate(outcomes)])
    assert sorted(order) == ["slow 0", "stop 0"]
    assert len(store.written) == 2
