"""Settings of retrieval. Every field says its unit; the assistant's settings compose these."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


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
    runtime: Literal["auto", "openvino", "torch"] = Field(
        "auto", description="what runs the embedded encoder; auto = OpenVINO where installed"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto = bfloat16 on a processor with AMX tiles, else float32"
    )
    batch_size: int = Field(32, ge=1, description="texts per forward pass, or per request")
    revision: str = Field("", description="commit or branch of a hub model; empty = the newest")
    download: bool = Field(
        False, description="whether a hub model that is not in the local cache may be fetched"
    )
    max_tokens: int = Field(512, ge=16, description="tokens of a text read by a hub model")
    query_prompt: str = Field("auto", description="before a question; auto = the model's own")
    passage_prompt: str = Field("auto", description="before a passage; auto = the model's own")
    languages: Literal["auto", "all", "en"] = Field(
        "auto", description="what a hub model reads; auto = by its vocabulary"
    )
    url: str = Field("", description="base URL of an OpenAI-compatible endpoint (remote)")
    api_key: SecretStr = Field(SecretStr(""), description="key of that endpoint")
    dimensions: int = Field(0, ge=0, description="length of its vectors asked for; 0 = its own")
    seconds: float = Field(60.0, gt=0, description="one request to the endpoint, seconds")
    retries: int = Field(4, ge=0, le=10, description="retries of a retryable endpoint error")


class SearchSettings(BaseModel):
    """How the two first stages are joined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: str = Field(
        "auto", description="a file of retrieval/index/; auto = flat to 20,000 vectors, then ivf"
    )
    snapshot_changes: int = Field(
        20_000, ge=100, description="changes after which the index is written to disk anew"
    )
    snapshot_minutes: float = Field(
        15.0, gt=0, description="time after which fewer changes (1,000 at least) are, too, minutes"
    )
    candidates: int = Field(60, ge=1, description="passages taken from each stage")
    dense_weight: float = Field(
        -1.0, ge=-1, le=1, description="weight of the dense score, English; below 0 = as fitted"
    )
    dense_weight_zh: float = Field(-1.0, ge=-1, le=1, description="the same for Chinese queries")
    rerank_weight: float = Field(
        -1.0, ge=-1, le=1, description="weight of the reranker's score; below 0 = as fitted"
    )
    max_terms: int = Field(48, ge=1, description="query terms searched; the rarest are kept")


class RerankSettings(BaseModel):
    """Which model reads the best candidates together with the question."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str = Field("none", description="a file of retrieval/rerank/")
    model: str = Field("", description="model name or folder, for backends that take one")
    device: str = Field("cpu", description="torch device")
    runtime: Literal["auto", "openvino", "torch"] = Field(
        "auto", description="what runs the embedded reranker; auto = OpenVINO where installed"
    )
    depth: int = Field(12, ge=1, le=500, description="best candidates of the fusion that are read")
    batch_size: int = Field(16, ge=1, description="texts per forward pass")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto = bfloat16 on a GPU or with AMX tiles, else float32"
    )
    revision: str = Field("", description="commit or branch of a hub model; empty = the newest")
    download: bool = Field(
        False, description="whether a hub model that is not in the local cache may be fetched"
    )
    max_tokens: int = Field(512, ge=16, description="tokens of question and text read together")


class SourceSettings(BaseModel):
    """How pages, feeds and repositories are fetched; nothing is, until `network` allows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: bool = Field(False, description="whether sources may use the network at all")
    hosts: tuple[str, ...] = Field((), description="hosts that may be asked; () = every public one")
    ports: tuple[int, ...] = Field((80, 443), description="TCP ports that may be asked")
    allow_private: bool = Field(
        False, description="whether hosts with private addresses may be asked (intranet)"
    )
    robots: bool = Field(True, description="whether a site's robots.txt is honoured")
    agent: str = Field("plumbline", description="name under which pages are fetched")
    pause_seconds: float = Field(
        1.0, ge=0, description="least time between two pages of one host, seconds"
    )
    seconds: float = Field(30.0, gt=0, description="wall-clock time for one page, seconds")
    max_bytes: int = Field(32 * 2**20, ge=1, description="largest page, unpacked, bytes")
    max_items: int = Field(10_000, ge=1, description="pages or entries of one source at most")
    git_seconds: float = Field(600.0, gt=0, description="wall-clock time for one fetch by git, s")


class IntervalSettings(BaseModel):
    """How often each kind of source is synchronised by itself, in minutes; 0 = never."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: float = Field(30.0, ge=0, description="folders walked again, minutes")
    web: float = Field(360.0, ge=0, description="single pages asked again, minutes")
    sitemap: float = Field(360.0, ge=0, description="sitemaps asked again, minutes")
    feed: float = Field(30.0, ge=0, description="feeds asked again, minutes")
    git: float = Field(15.0, ge=0, description="repositories fetched again, minutes")


class SyncSettings(BaseModel):
    """How sources are kept up to date while the chat runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    watch: bool = Field(True, description="whether ingested folders are watched while it runs")
    debounce_ms: int = Field(
        200, ge=10, description="changes closer together are taken in at once, milliseconds"
    )
    every_minutes: IntervalSettings = IntervalSettings()


class RetrievalSettings(BaseModel):
    """All of retrieval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parse: ParseSettings = ParseSettings()
    chunk: ChunkSettings = ChunkSettings()
    embed: EmbedSettings = EmbedSettings()
    search: SearchSettings = SearchSettings()
    rerank: RerankSettings = RerankSettings()
    sources: SourceSettings = SourceSettings()
    sync: SyncSettings = SyncSettings()
