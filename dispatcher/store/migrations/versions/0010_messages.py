"""The dial path in single messages: permits without a claim, epochs of shifts, attempts found by their key alone."""

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Stop the workers before: attempts that were claimed and never permitted go back to the queue."""
    driver = op.get_bind().connection.driver_connection
    assert driver
    driver.execute(Path(__file__).with_suffix(".sql").read_text())
