"""Where keys and values lie, and which prompts they hold."""
