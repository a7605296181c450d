"""What draws answers with weights of its own, beside the actor that learns: one file each.

A file has `build(...)`, which gives a `base.Sampler`; the file's name is the sampler's. None is
needed: every actor draws by itself, with its own weights.
"""
