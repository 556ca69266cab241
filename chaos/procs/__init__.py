"""A scenario on real processes: nodes of this machine, with the link proxy between them."""
