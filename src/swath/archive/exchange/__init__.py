"""Archives in the formats of others: GeoParquet, STAC, GeoJSON."""
