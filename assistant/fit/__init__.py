"""One file a set of weights: `run(data, out, limit, settings)` fits it and yields what it says."""
