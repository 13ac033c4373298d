"""Retrieval by example, inside a sensor and from one to another."""
