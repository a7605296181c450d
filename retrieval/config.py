"""Settings of retrieval. Every field says its unit; the assistant's settings compose these."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ParseSettings(BaseModel):
    """Limits on the worker that reads one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_mb: int = Field(2048, ge=256, description="address space of a worker, MiB")
    seconds: float = Field(60.0, gt=0, description="wall-clock time for one file, seconds")
    max_bytes: int = Field(64 * 2**20, ge=1, description="largest file read, bytes")
    max_characters: int = Field(8_000_000, ge=1, description="longest text one file may give")
    max_archive_ratio: float = Field(200.0, gt=1, description="unpacked over packed size, zip")
    max_archive_bytes: int = Field(512 * 2**20, ge=1, description="unpacked size of a zip, bytes")
    workers: int = Field(1, ge=1, le=16, description="files parsed side by side")


class ChunkSettings(BaseModel):
    """How documents are cut. Sizes are in tokens as `retrieval.text.count_tokens` counts them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_tokens: int = Field(160, ge=16, description="a chunk is closed once it has this many")
    max_tokens: int = Field(230, ge=32, description="no chunk has more; the encoder reads 256")


class EmbedSettings(BaseModel):
    """Which encoder turns text into vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str = Field("minilm", description="a file of retrieval/embed/")
    model: str = Field("", description="model name or folder, for backends that take one")
    device: str = Field("cpu", description="torch device")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto = bfloat16 on a processor with AMX tiles, else float32"
    )
    batch_size: int = Field(32, ge=1, description="texts per forward pass")


class SearchSettings(BaseModel):
    """How the two first stages are joined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: str = Field("flat", description="a file of retrieval/index/")
    candidates: int = Field(60, ge=1, description="passages taken from each stage")
    dense_weight: float = Field(0.5, ge=0, le=1, description="weight of the dense score, English")
    dense_weight_zh: float = Field(0.0, ge=0, le=1, description="the same for Chinese queries")
    max_terms: int = Field(48, ge=1, description="query terms searched; the first are kept")


class RerankSettings(BaseModel):
    """Which model reads the best candidates together with the question."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str = Field("none", description="a file of retrieval/rerank/")
    model: str = Field("", description="model name or folder, for backends that take one")
    device: str = Field("cpu", description="torch device")
    depth: int = Field(20, ge=1, le=500, description="best candidates of the fusion that are read")
    batch_size: int = Field(16, ge=1, description="texts per forward pass")


class RetrievalSettings(BaseModel):
    """All of retrieval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parse: ParseSettings = ParseSettings()
    chunk: ChunkSettings = ChunkSettings()
    embed: EmbedSettings = EmbedSettings()
    search: SearchSettings = SearchSettings()
    rerank: RerankSettings = RerankSettings()
