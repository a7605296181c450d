"""The tables of the knowledge base; see `retrieval.store` for what their transactions mean."""

from __future__ import annotations

import sqlalchemy as sa

#: Raised with every change of the tables below; `retrieval.store_migrate` has a step for each.
SCHEMA = 2

METADATA = sa.MetaData()
META = sa.Table(
    "meta",
    METADATA,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
DOCUMENT = sa.Table(
    "document",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("source", sa.String, nullable=False, unique=True),
    sa.Column("root", sa.String, nullable=False, index=True),
    sa.Column("title", sa.String, nullable=False),
    sa.Column("lang", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("made_by", sa.String, nullable=False),
    sa.Column("modified", sa.Float, nullable=False),
    sa.Column("stamp", sa.String, nullable=False),
    sa.Column("indexed", sa.Float, nullable=False),
    sa.Column("date", sa.Float, nullable=False, server_default="0"),  # the date scopes filter by
    sqlite_autoincrement=True,
)
#: Apart from `document`, so that reading names and dates does not read every text.
CONTENT = sa.Table(
    "content",
    METADATA,
    sa.Column("document_id", sa.ForeignKey("document.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
)
#: Who may read a document; no row: everybody.
ACCESS = sa.Table(
    "access",
    METADATA,
    sa.Column("document_id", sa.ForeignKey("document.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("reader", sa.String, primary_key=True),
)
CHUNK = sa.Table(
    "chunk",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column(
        "document_id",
        sa.ForeignKey("document.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    sa.Column("start", sa.Integer, nullable=False),
    sa.Column("end", sa.Integer, nullable=False),
    sa.Column("headings", sa.JSON, nullable=False),
    sa.Column("ordinal", sa.Integer, nullable=False),
    sa.Column("code", sa.JSON, nullable=False),
    sa.Column("digest", sa.String, nullable=False),
    sqlite_autoincrement=True,
)
#: The encoders whose vectors are stored: one serves; one may be filling up beside it. `settings`
#: is JSON to build the encoder again, "" where unknown.
MODEL = sa.Table(
    "model",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("dim", sa.Integer, nullable=False),
    sa.Column("settings", sa.String, nullable=False),
    sa.Column("serving", sa.Boolean, nullable=False),
    sqlite_autoincrement=True,
)
#: float16, little-endian; empty where the encoder cannot read the chunk.
EMBEDDING = sa.Table(
    "embedding",
    METADATA,
    sa.Column("chunk_id", sa.ForeignKey("chunk.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("model_id", sa.ForeignKey("model.id"), primary_key=True),
    sa.Column("vector", sa.LargeBinary, nullable=False),
)
#: What the derived indexes replay. `op` is add, remove (a chunk), touch (a document's date or
#: readers; no chunk) or model (another encoder serves).
CHANGE = sa.Table(
    "change",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("op", sa.String, nullable=False),
    sa.Column("chunk_id", sa.Integer, nullable=False),
    sa.Column("document_id", sa.Integer, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)
ROOT = sa.Table(
    "root",
    METADATA,
    sa.Column("root", sa.String, primary_key=True),
    sa.Column("synced", sa.Float, nullable=False),
    sa.Column("failures", sa.JSON, nullable=False),
)
