"""Campaigns on one account: a share by weight, soon a turn for everybody, and neither redials nor fresh rows starve."""

from collections import Counter

import pytest

from dispatcher.domain.permitting import Permitted
from dispatcher.domain.states import State
from tests.unit.flow.stage import REACHED, Stage
from tests.unit.flow.virtual import instant, now, play


def permitted(stage: Stage) -> list[Permitted]:
    return [row for _, _, permits in stage.store.permits_seen if permits for row in permits.granted]


@pytest.mark.parametrize(("cps", "weights"), [(100.0, [1] * 50), (100.0, [1] * 40 + [6] * 10), (500.0, [1, 3] * 25)])
def test_fifty_campaigns_share_the_pace_by_weight(cps: float, weights: list[int]) -> None:
    """Within a tenth over ten seconds."""

    async def history() -> None:
        stage, seconds = Stage(answers=[REACHED] * 20_000), 9.3
        account = await stage.account(cps)
        first = 0
        for i, weight in enumerate(weights):
            rows = int(cps * seconds * weight / sum(weights) * 1.3) + 20
            await stage.campaign(account, range(first, first + rows), weight=weight, name=f"c{i}")
            first += rows
        assert first < 10_000
        await stage.dial(account, seconds=seconds)
        dialled = Counter(row.campaign_id for row in permitted(stage))
        total = sum(dialled.values())
        assert total >= 0.97 * cps * seconds
        for campaign, weight in zip(sorted(dialled), weights, strict=True):
            wanted = total * weight / sum(weights)
            assert abs(dialled[campaign] - wanted) <= max(0.1 * wanted, 1), (weight, dialled[campaign], wanted)

    play(history())


@pytest.mark.parametrize("others", [1, 49])
def test_a_small_campaign_is_dialled_soon_beside_large_ones(others: int) -> None:
    async def history() -> None:
        stage = Stage(answers=[REACHED] * 20_000)
        account = await stage.account(100.0)
        for i in range(others):
            await stage.campaign(account, range(i * 150, i * 150 + 150), name=f"large {i}")
        small = await stage.campaign(account, range(9990, 9993), name="small")
        began = now()
        await stage.dial(account, seconds=4)
        seen = stage.store.permits_seen
        first = min(at for at, ask, got in seen if got and got.granted and ask.work.campaign_id == small.id)
        assert first - began <= 2

    play(history())


@pytest.mark.parametrize("cps", [5.0, 100.0])
def test_redials_and_fresh_rows_share_the_pace(cps: float) -> None:
    async def history() -> None:
        stage = Stage(answers=[REACHED] * 20_000)
        account = await stage.account(cps)
        await stage.campaign(account, range(int(cps * 30)))
        rows = sorted(stage.store.rows.values(), key=lambda row: row.id)
        for row in rows[: len(rows) // 2]:
            row.state, row.due_at, row.dials, row.permits = State.CALLBACK, instant(), 1, 1
        await stage.dial(account, seconds=10)
        dialled = permitted(stage)
        redials = sum(row.dials > 1 for row in dialled)
        assert len(dialled) >= 0.9 * cps * 10
        assert 0.4 <= redials / len(dialled) <= 0.6

    play(history())
