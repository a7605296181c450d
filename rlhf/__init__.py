"""Preferences in, policy out."""
