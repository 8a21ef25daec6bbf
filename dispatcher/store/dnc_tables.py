"""The tables of do-not-call lists, as tables.py."""

from sqlalchemy import BigInteger, Boolean, Column, Identity, PrimaryKeyConstraint, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, BIT

from dispatcher.store.tables import INSTANT, metadata

__all__ = ["metadata"]

dnc_entry = Table(
    "dnc_entry",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("scope", Text, nullable=False),
    Column("scope_id", BigInteger),
    Column("channel", Text, nullable=False),
    Column("number", Text, nullable=False),
    Column("is_prefix", Boolean, nullable=False),
    Column("list", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("effective_at", INSTANT, nullable=False),
    Column("expires_at", INSTANT),
    Column("ended_at", INSTANT),
)

dnc_import = Table(
    "dnc_import",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("scope", Text, nullable=False),
    Column("scope_id", BigInteger),
    Column("channel", Text, nullable=False),
    Column("list", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease_until", INSTANT),
    Column("replaces", Boolean, nullable=False),
    Column("numbers", BigInteger, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Column("active_at", INSTANT),
    Column("expires_at", INSTANT),
    Column("ended_at", INSTANT),
)

dnc_page = Table(
    "dnc_page",
    metadata,
    Column("import_id", BigInteger, nullable=False),
    Column("page", BigInteger, nullable=False),
    Column("offsets", ARRAY(SmallInteger)),
    Column("bits", BIT(8192)),
    Column("retired", Boolean, nullable=False),
)

dnc_import_prefix = Table(
    "dnc_import_prefix",
    metadata,
    Column("import_id", BigInteger, nullable=False),
    Column("number", Text, nullable=False),
    Column("ended_at", INSTANT),
)

dnc_unlisted = Table(
    "dnc_unlisted",
    metadata,
    Column("import_id", BigInteger, nullable=False),
    Column("number", Text, nullable=False),
    Column("ended_at", INSTANT, nullable=False),
    PrimaryKeyConstraint("import_id", "number"),
)

dnc_union = Table(
    "dnc_union",
    metadata,
    Column("page", BigInteger, primary_key=True, autoincrement=False),
    Column("offsets", ARRAY(SmallInteger)),
    Column("bits", BIT(8192)),
)

dnc_change = Table(
    "dnc_change",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("number", Text),
    Column("listed", Boolean, nullable=False),
    Column("at", INSTANT, nullable=False),
)
