"""Which schemas this version of the program can use.

A migration that the version before can live with leaves `schema_compatibility.readable_from` as it is, so that an
upgrade can roll: migrate first, then replace one process after the other. Any other migration sets it to its own.
"""

from dispatcher.domain.errors import SchemaMismatch
from dispatcher.store.database import Database

REVISION = "0018"
"""The newest revision that this version knows; a test compares it with the migrations."""


async def require_usable(db: Database) -> None:
    """Raises SchemaMismatch for a schema that is too old, or too new to be used by this version."""
    (tables,) = await db.fetch("schema.tables")
    found = (await db.fetch("schema.revision"))[0]["revision"] if tables["has_revision"] else None
    readable_from = (await db.fetch("schema.readable_from"))[0]["revision"] if tables["has_compatibility"] else found
    require_revision(found, readable_from)


def require_revision(found: str | None, readable_from: str | None) -> None:
    """Raises SchemaMismatch. `readable_from`: the oldest revision whose program can use the schema that was found."""
    if found is None or found < REVISION:
        state = f"has schema {found}" if found else "is empty"
        raise SchemaMismatch(f"the database {state}, this version needs {REVISION}; run: dispatcher migrate")
    if found > REVISION and (readable_from or found) > REVISION:
        raise SchemaMismatch(
            f"the database has schema {found}, which needs a newer version of the dispatcher; this one knows "
            f"{REVISION}. Install the version that migrated it"
        )
