"""Models: directories of weights with the contract that travels with them."""
