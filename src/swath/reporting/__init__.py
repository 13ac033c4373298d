"""How anything is shown: pages, charts, tables, color composites."""
