"""Webhooks on their way: what follows from a try, and connections that reach no private address."""
