"""Serve a model over the OpenAI protocol and talk to it with the openai package, then stop the server.

python examples/serve.py [MODEL]
"""

import os
import signal
import sys
import threading

import openai

from herdlm.serve.server import serve


def talk(model: str, url: str) -> None:
    """Send one request and stream another one, as any OpenAI client does."""
    try:
        client = openai.OpenAI(base_url=url, api_key="none")
        messages = [{"role": "user", "content": "How do I install a package?"}]
        answer = client.chat.completions.create(model=model, messages=messages, max_tokens=24)
        print(f"{answer.usage.completion_tokens} tokens: {answer.choices[0].message.content!r}")
        print("streamed:", end=" ")
        for chunk in client.completions.create(model=model, prompt="The server", max_tokens=24, stream=True):
            print(chunk.choices[0].text, end="", flush=True)
        print()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # the server drains and returns


def main(model: str = "runs/tiny") -> None:
    serve([model], port=0, ready=lambda name, url: threading.Thread(target=talk, args=(name, url)).start())


if __name__ == "__main__":
    main(*sys.argv[1:])
