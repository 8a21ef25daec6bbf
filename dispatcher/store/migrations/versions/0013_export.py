"""Exports are written by the server: it has to know how a cell must not begin."""

from alembic import op

revision = "0013"
down_revision = "0012"

_LINE_ENDS = r"\n-\r\u001c-\u001e\u0085\u2028\u2029"
_SPACES = r"\t-\r\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


def upgrade() -> None:
    """The SQL twin of domain.report.safe_cell: lines as str.splitlines, without the spaces of str.lstrip."""
    op.execute(
        f"""
        CREATE FUNCTION safe_cell(cell text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
          SELECT CASE WHEN cell ~ '(^|[{_LINE_ENDS}])[{_SPACES}]*[-=+@]' OR left(cell, 1) IN (E'\\t', E'\\r')
                      THEN '''' || cell ELSE cell END
        $$
        """
    )
