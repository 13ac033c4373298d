"""Which vectors are nearest: exact search and an inverted-file index over an archive."""
