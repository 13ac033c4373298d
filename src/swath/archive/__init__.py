"""Archive: embed collections of imagery and answer queries on them."""
