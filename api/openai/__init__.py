"""OpenAI's forms of requests, answers, streams and errors. Pure; `api.views.openai` has the endpoints."""
