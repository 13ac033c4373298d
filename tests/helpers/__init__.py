"""What several tests use: small files, servers, models and processes."""
