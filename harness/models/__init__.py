"""Model families: how images are encoded, where tokens stand, how answers are generated."""
