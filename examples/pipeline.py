"""Frame selection in a pipeline of transformers.

python examples/pipeline.py --model Qwen/Qwen3-VL-8B-Instruct match.mp4 "Who scores first?"
"""

import argparse

from transformers import AutoProcessor, pipeline

from refocus_select.adapters import last_selection, with_frame_selection
from refocus_select.weights import DEFAULT_SELECTOR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("question")
    parser.add_argument("--model", default="Qwen/Qwen3-VL-8B-Instruct")
    parser.add_argument("--selector", default=DEFAULT_SELECTOR)
    parser.add_argument("--num-frames", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    args = parser.parse_args()

    processor = AutoProcessor.from_pretrained(args.model)
    processor = with_frame_selection(processor, args.selector, num_frames=args.num_frames)
    pipe = pipeline("image-text-to-text", model=args.model, processor=processor, dtype="auto")

    content = [{"type": "video", "video": args.video}, {"type": "text", "text": args.question}]
    messages = [{"role": "user", "content": content}]
    answer = pipe(text=messages, max_new_tokens=args.max_new_tokens, return_full_text=False)
    print("answer:", answer[0]["generated_text"])
    print("seen at:", ", ".join(f"{t:.2f} s" for t in last_selection(processor).timestamps))


if __name__ == "__main__":
    main()
