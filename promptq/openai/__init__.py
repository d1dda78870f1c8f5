"""OpenAI's forms of requests, answers and errors, which the API and the dispatcher share. Pure."""
