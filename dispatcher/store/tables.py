"""The schema as SQLAlchemy sees it: what Alembic compares with a database (a test does, after each migration).

Partial and expression indexes, CHECKs, triggers and partitions stand in the migrations, as SQL.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()
INSTANT = DateTime(timezone=True)

account = Table(
    "account",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("provider", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("credentials", Text, nullable=False),
    Column("cps", Double, nullable=False),
    Column("headroom", Double, nullable=False),
    Column("in_flight", Integer, nullable=False),
    Column("in_flight_ttl", Interval, nullable=False),
    Column("shifts", Integer, nullable=False),
    Column("calls_per_request", Integer, nullable=False),
    Column("options", JSONB, nullable=False),
    Column("dedupe_window", Interval),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("pace", Double, nullable=False),
    Column("throttled_at", INSTANT),
    Column("throttled_until", INSTANT),
    Column("stops", Integer, nullable=False),
    Column("stopped_at", INSTANT),
    Column("probe_at", INSTANT),
    Column("next_slot_at", INSTANT),
    Column("created_at", INSTANT, nullable=False),
)

campaign = Table(
    "campaign",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("account_id", BigInteger, ForeignKey("account.id"), nullable=False),
    Column("part", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("weight", Integer, nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("request_id", Text, unique=True),
    Column("created_at", INSTANT, nullable=False),
    Column("started_at", INSTANT),
    Column("finished_at", INSTANT),
    Column("purged_at", INSTANT),
)

campaign_policy = Table(
    "campaign_policy",
    metadata,
    Column("campaign_id", BigInteger, ForeignKey("campaign.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("body", JSONB, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    PrimaryKeyConstraint("campaign_id", "version"),
)

load = Table(
    "load",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("campaign_id", BigInteger, ForeignKey("campaign.id"), nullable=False),
    Column("identity", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("owner", Text),
    Column("lease_until", INSTANT),
    Column("rows_read", BigInteger, nullable=False),
    Column("error", Text),
    Column("created_at", INSTANT, nullable=False),
    Column("finished_at", INSTANT),
    Column("part", Integer),
    Column("lists_version", BigInteger),
    UniqueConstraint("campaign_id", "identity"),
)

destination = Table(
    "destination",
    metadata,
    Column("part", Integer, nullable=False),
    Column("id", BigInteger, Identity(always=False)),
    Column("campaign_id", BigInteger, nullable=False),
    Column("load_id", BigInteger, nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("raw", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("e164", Text),
    Column("variables", JSONB),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("result", Text),
    Column("permits", SmallInteger, nullable=False),
    Column("dials", SmallInteger, nullable=False),
    Column("fence", SmallInteger, nullable=False),
    Column("retry_owner", Text, nullable=False),
    Column("due_at", INSTANT, nullable=False),
    Column("first_dialled_at", INSTANT),
    Column("finished_at", INSTANT),
    Column("moved_by", Text, nullable=False),
    PrimaryKeyConstraint("part", "id"),
    UniqueConstraint("part", "campaign_id", "load_id", "line", name="destination_line"),
    postgresql_partition_by="LIST (part)",
)

open_attempt = Table(
    "open_attempt",
    metadata,
    Column("key", Text, primary_key=True),
    Column("part", Integer, nullable=False),
    Column("destination_id", BigInteger, nullable=False),
    Column("campaign_id", BigInteger, nullable=False),
    Column("account_id", BigInteger, nullable=False),
    Column("channel", Text, nullable=False),
    Column("e164", Text, nullable=False),
    Column("caller_id", Text, nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("fence", SmallInteger, nullable=False),
    Column("phase", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease_until", INSTANT, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Column("permit_at", INSTANT, nullable=False),
    Column("provider_owned", Boolean, nullable=False),
    Column("provider_call_id", Text),
    Column("provider_request_id", Text),
    Column("next_lookup_at", INSTANT),
    Column("result_deadline", INSTANT),
    Column("lookups", Integer, nullable=False),
    Column("raw_state", Text),
    Column("raw_result", Text),
    Column("reason", Text),
    UniqueConstraint("channel", "e164"),
    UniqueConstraint("part", "destination_id"),
)

attempt = Table(
    "attempt",
    metadata,
    Column("part", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("destination_id", BigInteger, nullable=False),
    Column("campaign_id", BigInteger, nullable=False),
    Column("account_id", BigInteger, nullable=False),
    Column("channel", Text, nullable=False),
    Column("e164", Text, nullable=False),
    Column("caller_id", Text, nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("fence", SmallInteger, nullable=False),
    Column("phase", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Column("permit_at", INSTANT),
    Column("closed_at", INSTANT, nullable=False),
    Column("provider_call_id", Text),
    Column("provider_request_id", Text),
    Column("disposition", Text, nullable=False),
    Column("result", Text),
    Column("raw_state", Text),
    Column("raw_result", Text),
    Column("detail", Text),
    Column("step", Text, nullable=False),
    Column("reason", Text),
    Column("answered_at", INSTANT),
    Column("duration_s", Double),
    Column("cost", Double),
    PrimaryKeyConstraint("part", "key"),
    UniqueConstraint("part", "destination_id", "fence"),
    postgresql_partition_by="LIST (part)",
)

postback = Table(
    "postback",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("account_id", BigInteger, ForeignKey("account.id"), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("source_ip", Text, nullable=False),
    Column("received_at", INSTANT, nullable=False),
    Column("deliveries", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_at", INSTANT, nullable=False),
    Column("note", Text),
    Column("request", Text),
    UniqueConstraint("account_id", "digest"),
)

cancel = Table(
    "cancel",
    metadata,
    Column("key", Text, primary_key=True),
    Column("account_id", BigInteger, ForeignKey("account.id"), nullable=False),
    Column("why", Text, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Column("ask_at", INSTANT),
    Column("asked_at", INSTANT),
)

lost_request = Table(
    "lost_request",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("account_id", BigInteger, ForeignKey("account.id"), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("keys", ARRAY(Text), nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Column("resend_at", INSTANT, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("ended_at", INSTANT),
)

schema_compatibility = Table("schema_compatibility", metadata, Column("readable_from", Text, nullable=False))

shift = Table(
    "shift",
    metadata,
    Column("account_id", BigInteger, ForeignKey("account.id"), nullable=False),
    Column("slot", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease_until", INSTANT, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    PrimaryKeyConstraint("account_id", "slot"),
)

campaign_due = Table(
    "campaign_due",
    metadata,
    Column("campaign_id", BigInteger, ForeignKey("campaign.id"), primary_key=True),
    Column("account_id", BigInteger, ForeignKey("account.id"), nullable=False),
    Column("next_due_at", INSTANT),
    Column("blocked_by", Text),
    Column("moved", Boolean, nullable=False),
    Column("check_at", INSTANT),
)

request = Table(
    "request",
    metadata,
    Column("id", Text, primary_key=True),
    Column("act", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("at", INSTANT, nullable=False),
)

campaign_pace = Table(
    "campaign_pace",
    metadata,
    Column("campaign_id", BigInteger, ForeignKey("campaign.id"), primary_key=True),
    Column("permits", BigInteger, nullable=False),
    Column("rate", Double, nullable=False),
    Column("at", INSTANT, nullable=False),
    Column("measure_at", INSTANT),
)

counter = Table(
    "counter",
    metadata,
    Column("campaign_id", BigInteger, nullable=False),
    Column("measure", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("n", BigInteger, nullable=False),
    PrimaryKeyConstraint("campaign_id", "measure", "label"),
)

counter_delta = Table(
    "counter_delta",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("campaign_id", BigInteger, nullable=False),
    Column("measure", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("n", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", INSTANT, nullable=False),
    Column("actor", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
)

attempt_ref = Table(
    "attempt_ref",
    metadata,
    Column("key", Text, primary_key=True),
    Column("part", Integer, nullable=False),
    Column("account_id", BigInteger, nullable=False),
    Column("provider_call_id", Text),
    Column("provider_request_id", Text),
)

heartbeat = Table(
    "heartbeat",
    metadata,
    Column("name", Text, primary_key=True),
    Column("at", INSTANT, nullable=False),
)

progress = Table(
    "progress",
    metadata,
    Column("name", Text, primary_key=True),
    Column("up_to", BigInteger, nullable=False),
)
