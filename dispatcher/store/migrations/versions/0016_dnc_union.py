"""Permits look at one page for each number, however many lists there are: the union of all imports."""

from pathlib import Path

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Stop the workers before. A list of 50 million numbers takes some minutes."""
    driver = op.get_bind().connection.driver_connection
    assert driver
    driver.execute(Path(__file__).with_suffix(".sql").read_text())
