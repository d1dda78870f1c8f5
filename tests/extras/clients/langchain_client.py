"""LangChain's ChatOpenAI against a running service: prints what it got, as JSON."""

from __future__ import annotations

import json
import sys

from langchain_openai import ChatOpenAI

url, words = sys.argv[1:]
chat = ChatOpenAI(base_url=url, api_key="any", model="echo", temperature=0, max_retries=0)
answer = chat.invoke([("system", "Be brief."), ("user", words)])
print(
    json.dumps(
        {
            "chat": answer.content,
            "usage": answer.usage_metadata["output_tokens"],
            "streamed": "".join(chunk.content for chunk in chat.stream(words)),
            "batch": [one.content for one in chat.batch([words, "two words"])],
        }
    )
)
