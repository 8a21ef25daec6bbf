"""MemoryStore: the Store port in memory, on the same pure decisions. The contract suite proves it equal."""

from datetime import datetime, timedelta

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign
from tests.memory.campaigns import Campaigns
from tests.memory.cancelling import Cancelling
from tests.memory.dialling import Dialling
from tests.memory.lists import Lists
from tests.memory.resending import Resending


class MemoryStore(Campaigns, Dialling, Resending, Cancelling, Lists):
    """The Store port."""

    async def purge_campaign(self, campaign: Campaign, *, actor: AuditActor) -> None:
        raise NotImplementedError  # PostgreSQL's own tests hold it

    async def empty_postbacks(self, age: timedelta) -> int:
        return 0

    async def ping(self) -> None: ...

    async def now(self) -> datetime:
        return self.clock()

    async def close(self) -> None: ...
