"""LiteLLM as a client of a running service: prints what it got, as JSON."""

from __future__ import annotations

import json
import sys

import litellm

url, words = sys.argv[1:]
messages = [{"role": "user", "content": words}]
fields = {"model": "openai/echo", "api_base": url, "api_key": "any", "num_retries": 0}
answer = litellm.completion(messages=messages, **fields)
stream = litellm.completion(messages=messages, stream=True, **fields)
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
try:
    litellm.completion(messages=messages, **(fields | {"model": "openai/other"}))
    error = ""
except litellm.exceptions.NotFoundError as caught:
    error = type(caught).__name__
text = litellm.text_completion(prompt=words, max_tokens=3, **(fields | {"model": "text-completion-openai/echo"}))
print(
    json.dumps(
        {
            "chat": answer.choices[0].message.content,
            "usage": answer.usage.completion_tokens,
            "streamed": streamed,
            "text": text.choices[0].text,
            "error": error,
        }
    )
)
