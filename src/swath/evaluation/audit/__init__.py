"""Ways to fool oneself that can be checked: leakage, collapse, robustness."""
