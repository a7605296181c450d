"""One file a format family; each file is read in a limited worker (`retrieval.parse.worker`)."""
