"""Ask a vLLM server about a video: one JPEG sequence with the true time of every frame.

    vllm serve Qwen/Qwen3-VL-8B-Instruct --trust-request-mm-kwargs
    python examples/vllm_request.py --model Qwen/Qwen3-VL-8B-Instruct match.mp4 "Who scores first?"

With the client of OpenAI the last step is
`client.chat.completions.create(model=NAME, messages=messages, extra_body=extra_body)`.
"""

import argparse
import json
import urllib.request

from refocus_select.adapters.openai import video_request
from refocus_select.weights import DEFAULT_SELECTOR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("question")
    parser.add_argument("--url", default="http://localhost:8000/v1")
    parser.add_argument("--model", required=True, help="as the server calls it")
    parser.add_argument("--model-type", default="qwen3_vl", help="`model_type` in its config.json")
    parser.add_argument("--selector", default=DEFAULT_SELECTOR)
    parser.add_argument("--num-frames", type=int, default=32)
    args = parser.parse_args()

    content = [{"type": "video", "video": args.video}, {"type": "text", "text": args.question}]
    messages, extra_body = video_request(
        [{"role": "user", "content": content}], args.selector, num_frames=args.num_frames, model=args.model_type
    )

    body = json.dumps({"model": args.model, "messages": messages, **extra_body}).encode()
    request = urllib.request.Request(f"{args.url}/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        print("answer:", json.load(response)["choices"][0]["message"]["content"])


if __name__ == "__main__":
    main()
