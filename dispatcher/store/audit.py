"""The audit: acts of people and of the system, append-only."""

from collections.abc import Mapping
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.domain.audit import AuditActor
from dispatcher.store.database import Transaction


async def write_audit(tx: Transaction, actor: AuditActor, act: str, subject: str, detail: Mapping[str, Any]) -> None:
    """Part of the transaction that did the act: both are kept or neither is."""
    await tx.fetch("campaigns.audit", actor=actor, act=act, subject=subject, detail=Jsonb(dict(detail)))
