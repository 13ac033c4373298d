"""Imagery: find files, read them safely, know their sensor and scale, cut chips, keep GSD true."""
