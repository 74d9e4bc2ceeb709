"""who somebody is: identities of a provider, ends of API clients; and addresses go from replies, reasons and errors.

Of members who were deleted the address is not known any more, so whatever looks like one is redacted. What was redacted
does not come back by a downgrade.

Revision: 0015
Follows: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

#: Texts that servers wrote. As `schemas.redaction` did when this migration was written.
_REDACTED = (
    ("batches", "first_error"),
    ("deliveries", "reply"),
    ("deliveries", "reason"),
    ("log_entries", "reason"),
    ("batch_webhooks", "last_error"),
    ("send_limits", "reply"),
)
_INSIDE = r"""[^[:space:]<>()\[\],;:"']"""
_ADDRESS = rf"""(?:"[^"]*"|{_INSIDE}+(?:'{_INSIDE}+)*)(?:[@\uff20\ufe6b]|%40){_INSIDE}*"""


def upgrade() -> None:
    op.add_column("accounts", sa.Column("oidc_issuer", sa.Text()))
    op.add_column("accounts", sa.Column("oidc_subject", sa.Text()))
    op.create_unique_constraint(
        op.f("uq_accounts_oidc_issuer_oidc_subject"), "accounts", ["oidc_issuer", "oidc_subject"]
    )
    op.create_check_constraint(
        op.f("ck_accounts_identity_is_whole"), "accounts", "(oidc_issuer IS NULL) = (oidc_subject IS NULL)"
    )
    op.add_column("api_clients", sa.Column("expires_at", sa.DateTime(timezone=True)))
    op.add_column("api_clients", sa.Column("made_by", sa.BigInteger()))
    op.create_foreign_key(
        op.f("fk_api_clients_made_by"), "api_clients", "accounts", ["made_by"], ["id"], ondelete="CASCADE"
    )
    op.create_index(op.f("ix_api_clients_made_by"), "api_clients", ["made_by"])
    connection = op.get_bind()
    for table, column in _REDACTED:
        connection.exec_driver_sql(
            f"UPDATE {table} SET {column} = regexp_replace({column}, %(address)s, '(address)', 'g') "  # noqa: S608 - constants
            f"WHERE {column} ~ %(address)s",
            {"address": _ADDRESS},
        )


def downgrade() -> None:
    """The columns go; nothing brings back what was redacted."""
    op.drop_index(op.f("ix_api_clients_made_by"), table_name="api_clients")
    op.drop_constraint(op.f("fk_api_clients_made_by"), "api_clients", type_="foreignkey")
    op.drop_column("api_clients", "made_by")
    op.drop_column("api_clients", "expires_at")
    op.drop_constraint(op.f("ck_accounts_identity_is_whole"), "accounts", type_="check")
    op.drop_constraint(op.f("uq_accounts_oidc_issuer_oidc_subject"), "accounts", type_="unique")
    op.drop_column("accounts", "oidc_subject")
    op.drop_column("accounts", "oidc_issuer")
