"""Ask any OpenAI-compatible server about a video: times and pictures in turn.

    python examples/openai_request.py --url http://localhost:8000/v1 --model NAME match.mp4 "Who scores first?"

With the client of OpenAI the last step is `client.chat.completions.create(model=NAME, messages=messages)`.
"""

import argparse
import json
import os
import urllib.request

from refocus_select.adapters.openai import image_messages
from refocus_select.weights import DEFAULT_SELECTOR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("question")
    parser.add_argument("--url", default="http://localhost:8000/v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--selector", default=DEFAULT_SELECTOR)
    parser.add_argument("--num-frames", type=int, default=16)
    args = parser.parse_args()

    content = [{"type": "video", "video": args.video}, {"type": "text", "text": args.question}]
    messages = image_messages([{"role": "user", "content": content}], args.selector, num_frames=args.num_frames)

    body = json.dumps({"model": args.model, "messages": messages}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}"}
    request = urllib.request.Request(f"{args.url}/chat/completions", body, headers)
    with urllib.request.urlopen(request) as response:
        print("answer:", json.load(response)["choices"][0]["message"]["content"])


if __name__ == "__main__":
    main()
