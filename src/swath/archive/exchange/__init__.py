"""Exchange: archives and answers in formats that other tools open."""
