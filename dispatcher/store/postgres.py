"""PostgresStore: the Store port on PostgreSQL, one module for each aggregate."""

from datetime import datetime

from dispatcher.domain.campaign import Policy
from dispatcher.store.accounts import Accounts
from dispatcher.store.campaigns import Campaigns
from dispatcher.store.cancelling import Cancelling
from dispatcher.store.database import Database
from dispatcher.store.dnc import Dnc
from dispatcher.store.loads import Loads
from dispatcher.store.lookups import Lookups
from dispatcher.store.permitting import Permitting
from dispatcher.store.postbacks import Postbacks
from dispatcher.store.purging import Purging
from dispatcher.store.reports import Reports
from dispatcher.store.resending import Resending
from dispatcher.store.schema import require_usable
from dispatcher.store.settling import Settling


class PostgresStore(
    Accounts, Campaigns, Loads, Permitting, Settling, Lookups, Resending, Cancelling, Postbacks, Dnc, Reports, Purging
):
    """Opened in the event loop that uses it; never shared across a fork."""

    def __init__(self, url: str, pool_size: int = 8) -> None:
        self.db = Database(url, pool_size)
        self._policies: dict[tuple[int, int], Policy] = {}
        self._parts = [0]
        self._work_parts = [0]

    async def open(self) -> None:
        """Connect; refuse a server that may forget a commit, and a schema that is not ours. Raises ServerError."""
        await self.db.open()
        await self.db.check_server()
        await require_usable(self.db)

    async def close(self) -> None:
        await self.db.close()

    async def ping(self) -> None:
        """Raises ServerError when PostgreSQL is away."""
        await self.now()

    async def now(self) -> datetime:
        """The clock that everything follows."""
        row = await self.db.fetch_one("reports.now")
        assert row
        at: datetime = row["now"]
        return at
