"""One file a source; each yields `Item`s for `retrieval.ingest`."""
