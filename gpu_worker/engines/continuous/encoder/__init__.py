"""Embeddings: models that read a whole prompt at once, and give one vector for it."""
