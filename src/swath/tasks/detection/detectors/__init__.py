"""Detection networks for upright and oriented boxes."""
