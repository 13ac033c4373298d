"""What is known about products by their names and metadata: dates, and layers that are no bands."""
