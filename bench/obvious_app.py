"""The obvious implementation: a task for each destination, ORM rows, a commit for each change of state, one client.

It has no permit, no pace, no lease and no memory of a lost answer; it is what a team writes in its first week.
"""

import os
from datetime import UTC, datetime
from functools import cache
from typing import Any

import httpx
from celery import Celery
from fastapi import FastAPI, HTTPException
from sqlalchemy import JSON, DateTime, Engine, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

MOST_TRIES = 2
WARM, DIAL = "warm", "dial"

app = Celery("obvious", broker=os.environ.get("BENCH_BROKER"), backend=None)
app.conf.worker_prefetch_multiplier = 4
app.conf.task_default_queue = DIAL
web = FastAPI()


class Base(DeclarativeBase):
    pass


class Destination(Base):
    """A number and how it went."""

    __tablename__ = "obvious_destination"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str]
    state: Mapped[str] = mapped_column(default="READY")
    result: Mapped[str | None]
    tries: Mapped[int] = mapped_column(default=0)
    call_id: Mapped[str | None] = mapped_column(index=True)
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Postback(Base):
    """What the provider said."""

    __tablename__ = "obvious_postback"

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)


@cache
def engine() -> Engine:
    return create_engine(os.environ["BENCH_DATABASE"])


@cache
def client() -> httpx.Client:
    return httpx.Client(base_url=os.environ["BENCH_PROVIDER"], auth=("bench", "bench"))


@app.task
def dial(destination_id: int) -> None:
    """Ring one number."""
    with Session(engine()) as session:
        row = session.get_one(Destination, destination_id)
        row.state = "DIALLING"
        row.tries += 1
        session.commit()
        answer = client().post("/calls", json=[{"phoneNumber": row.number, "liveMessage": "Hello"}])
        row.call_id = str(answer.json()["items"][0]["id"])
        row.state = "ACCEPTED"
        session.commit()


@web.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@web.post("/hook")
def hook(body: dict[str, Any]) -> dict[str, str]:
    """Store what came, and settle the destination."""
    call = body["events"][0]["resource"]
    with Session(engine()) as session:
        session.add(Postback(body=body))
        session.commit()
        row = session.scalars(select(Destination).where(Destination.call_id == str(call["id"]))).one_or_none()
        if row is None:
            raise HTTPException(503)
        row.result = call["finalCallResult"]
        again = row.result == "BUSY" and row.tries < MOST_TRIES
        row.state = "READY" if again else "FINISHED"
        row.finished_at = None if again else datetime.now(UTC)
        session.commit()
        if again:
            dial.delay(row.id)
    return {"status": "ok"}
