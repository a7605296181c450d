"""The tables of the knowledge base; see `retrieval.store` for what their transactions mean."""

from __future__ import annotations

import sqlalchemy as sa

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
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("lang", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("made_by", sa.String, nullable=False),
    sa.Column("modified", sa.Float, nullable=False),
    sa.Column("stamp", sa.String, nullable=False),
    sa.Column("indexed", sa.Float, nullable=False),
    sqlite_autoincrement=True,
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
EMBEDDING = sa.Table(
    "embedding",
    METADATA,
    sa.Column("chunk_id", sa.ForeignKey("chunk.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("vector", sa.LargeBinary, nullable=False),  # float16, little-endian
)
CHANGE = sa.Table(
    "change",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("op", sa.String, nullable=False),
    sa.Column("chunk_id", sa.Integer, nullable=False),
    sqlite_autoincrement=True,
)
ROOT = sa.Table(
    "root",
    METADATA,
    sa.Column("root", sa.String, primary_key=True),
    sa.Column("synced", sa.Float, nullable=False),
    sa.Column("failures", sa.JSON, nullable=False),
)
