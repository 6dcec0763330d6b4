"""Training: phantoms and synthesis, data sets, losses, and the loop that uses them."""
