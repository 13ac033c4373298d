"""Tables of embeddings that grow: what is stored, searched, compared over time and exchanged."""
