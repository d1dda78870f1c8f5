"""Our own engine: continuous batching on torch and transformers."""
