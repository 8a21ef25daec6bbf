"""The obvious implementation: a task for each destination, an ORM row, a commit for each change of state, one client.

It has no permit, no pace, no lease and no memory of a lost answer; it is what a team writes in its first week.
"""

import os
from typing import Any

import httpx
from celery import Celery
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from config.celery import broker_url

app = Celery("obvious", broker=broker_url(os.environ["BENCH_REDIS"]), backend=None)
app.conf.worker_prefetch_multiplier = 4
engine = create_engine(os.environ["BENCH_DATABASE"].replace("postgresql://", "postgresql+psycopg://"), pool_size=2)
client: Any = None


class Base(DeclarativeBase):
    pass


class Destination(Base):
    """A number and how it went."""

    __tablename__ = "obvious_destination"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str]
    state: Mapped[str] = mapped_column(default="READY")
    call_id: Mapped[str | None]


@app.task
def dial(destination_id: int) -> None:
    """Ring one number."""
    global client
    if client is None:
        client = httpx.Client(base_url=os.environ["BENCH_PROVIDER"], auth=("bench", "bench"))
    with Session(engine) as session:
        row = session.get_one(Destination, destination_id)
        row.state = "DIALLING"
        session.commit()
        answer = client.post("/calls", json=[{"phoneNumber": row.number, "liveMessage": "Hello"}])
        row.call_id = str(answer.json()["items"][0]["id"])
        row.state = "ACCEPTED"
        session.commit()
