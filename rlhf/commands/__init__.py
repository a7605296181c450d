"""Commands of `app.py` that need no assistant: one file each.

A file has `HELP` (one line), `arguments(parser)`, which adds what the command takes, and
`run(options, settings, out) -> int`, which returns the exit status. The file's name is the
command's, with `_` for `-`. `app.py` imports all of them to build its command line, so nothing
heavy is imported here.
"""
