"""Engines: what turns prompts into text. `base` has the protocol, `registry` makes one by its name."""
