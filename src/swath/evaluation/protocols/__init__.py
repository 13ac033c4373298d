"""How a frozen model is scored: kNN, linear probe, few-shot."""
