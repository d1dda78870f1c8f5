"""OpenAI's endpoints. Each call is a job underneath."""
