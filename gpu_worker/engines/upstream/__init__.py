"""The engine that computes nothing: an OpenAI-compatible server does, and this sends it the rows."""
