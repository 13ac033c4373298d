"""Search: what looks like this, among millions of chips, and what changed most between two dates."""
