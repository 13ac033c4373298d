"""Serving: an archive over HTTP, for a map, a program or both; `swath serve`.

How a request goes: `gate` refuses what has no business here (host, token, size), `routes` checks its shape
(`messages`), a *lane* (`lanes`) does the work in a bounded number of threads, over the archive as it is now
(`holdings`). The search itself is the archive's own (`swath.archive.query`); pixels are read by `imagery`.
"""
