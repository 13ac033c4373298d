"""Several sensors over one footprint: tables of pairs, and the data set that reads them."""
