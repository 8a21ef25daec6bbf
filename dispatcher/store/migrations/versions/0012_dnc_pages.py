"""Imported lists are kept as bitmaps, in pages, as roaring bitmaps are: a national list takes megabytes."""

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Stop the workers before. A list of 50 million numbers takes some minutes."""
    driver = op.get_bind().connection.driver_connection
    assert driver
    driver.execute(Path(__file__).with_suffix(".sql").read_text())
