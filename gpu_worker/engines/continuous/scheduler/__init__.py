"""Which rows run, and which tokens a step computes. No torch here."""
