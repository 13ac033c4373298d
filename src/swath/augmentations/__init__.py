"""How a batch is changed at random with its ground sample distance kept true."""
