"""The tables of a campaign from its first call to its last: what they grow to, and what the last calls cost."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.figures import WHOLE, Figure, growth
from bench.loading import MEGABYTES, load_apart, prepare, write_people
from bench.rig import Ground, settings_of
from bench.steps import GROUP, Site, accept, opened, permit, settle
from dispatcher.domain.states import State

_PARTS = 10
_SIZES = """
SELECT (sum(pg_total_relation_size(c.oid)) / 1e6)::float AS megabytes, sum(s.n_dead_tup)::int AS dead,
       sum(s.autovacuum_count)::int AS vacuums
  FROM pg_class AS c JOIN pg_stat_user_tables AS s ON s.relid = c.oid
 WHERE c.relname IN (%(destination)s, %(attempt)s)
"""


@dataclass(frozen=True)
class Sizes:
    """Of the campaign's two tables."""

    megabytes: float = 0
    dead: int = 0
    """Rows that are left of updates, as PostgreSQL estimates."""
    vacuums: int = 0


@dataclass
class Lifetime:
    """What was found."""

    rows: int
    before: Sizes
    after: Sizes = field(default_factory=Sizes)
    permit_s: list[float] = field(default_factory=list)
    settle_s: list[float] = field(default_factory=list)

    def figures(self) -> list[Figure]:
        return [
            _last_to_first("permit", self.permit_s),
            _last_to_first("accept and settle", self.settle_s),
            Figure(f"tables of {self.rows:,} rows, loaded", (self.before.megabytes,), MEGABYTES),
            Figure("the same when everybody was called", (self.after.megabytes,), MEGABYTES),
            Figure("autovacuum's runs meanwhile", (self.after.vacuums - self.before.vacuums,), WHOLE),
            Figure("dead rows at the end, of each 100 calls", (100 * self.after.dead / self.rows,), WHOLE),
        ]


def _last_to_first(name: str, seconds: list[float]) -> Figure:
    n = len(seconds) // _PARTS
    return growth(f"{name} in the last tenth of a campaign, against the first", seconds[:n], seconds[-n:])


def measure_lifetime(ground: Ground, rows: int, say: Callable[[str], None]) -> Lifetime:
    """Call everybody in a campaign of this size, as fast as one connection does."""
    settings = settings_of(ground)
    asyncio.run(prepare(settings, ground.urls))
    say(f"a campaign of {rows:,} from its first call to its last")
    campaign_id, _, _ = load_apart(settings, ground.urls, write_people(ground.folder / "people.csv", rows))
    return asyncio.run(_live(ground, campaign_id))


async def _live(ground: Ground, campaign_id: int) -> Lifetime:
    async with opened(ground, campaign_id, campaign_id) as site:
        ready = (await site.store.status(site.campaign)).state_counts.rows[State.READY, None]
        found = Lifetime(ready, await _sizes(site))
        for _ in range(ready // GROUP):
            began = time.perf_counter()
            await permit(site)
            permitted = time.perf_counter()
            await accept(site)
            await settle(site)
            found.permit_s.append(permitted - began)
            found.settle_s.append(time.perf_counter() - permitted)
        found.after = await _sizes(site)
        return found


async def _sizes(site: Site) -> Sizes:
    tables = {"destination": f"destination_{site.campaign.part}", "attempt": f"attempt_{site.campaign.part}"}
    async with site.store.db.transaction() as tx:
        (row,) = await (await tx.connection.execute(_SIZES, tables)).fetchall()
    return Sizes(**row)
