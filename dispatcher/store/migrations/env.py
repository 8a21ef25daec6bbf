"""What Alembic runs: on the connection that `migrate.py` hands over, inside its transaction."""

from alembic import context

from dispatcher.store.dnc_tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
