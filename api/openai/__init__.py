"""OpenAI's streams of responses, and the forms of answers in the schema; `promptq.openai` has what is shared."""
