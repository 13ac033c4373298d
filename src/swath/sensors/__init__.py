"""Which bands, unit and scale a sensor has."""
