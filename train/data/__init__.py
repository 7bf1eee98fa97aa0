"""Training data: synthetic shapes, photographs, warped pairs, photometric changes."""
