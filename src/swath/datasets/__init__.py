"""Samples out of folders, tables and chips of scenes."""
