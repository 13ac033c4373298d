"""What is asked of an archive: queries, filters, results, relevance feedback."""
