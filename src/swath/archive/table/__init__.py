"""The rows of an archive: schema, transactions, versions, per-sensor means."""
