"""Which scenes there are: folders and STAC catalogs, their headers and band statistics."""
