"""From requests to tokens, and from tokens to text."""
