"""Moderators: one file each, found by file name (see safety.menu)."""
