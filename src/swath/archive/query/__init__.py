"""How is an archive searched: queries, filters, options, results, relevance feedback."""
