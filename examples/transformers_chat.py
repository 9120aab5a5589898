"""Ask a video model of transformers about a video, with the frames that the question needs.

python examples/transformers_chat.py --model Qwen/Qwen2.5-VL-7B-Instruct match.mp4 "Who scores first?"
"""

import argparse

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from refocus_select.adapters import disable_selection, last_selection, with_frame_selection
from refocus_select.weights import DEFAULT_SELECTOR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("question")
    parser.add_argument("--model", default="Qwen/Qwen2.5-VL-7B-Instruct")
    parser.add_argument("--selector", default=DEFAULT_SELECTOR, help='"uniform" is the baseline')
    parser.add_argument("--num-frames", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--stock", action="store_true", help="answer with the stock processor too")
    args = parser.parse_args()

    model = AutoModelForImageTextToText.from_pretrained(args.model, dtype="auto")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    processor = AutoProcessor.from_pretrained(args.model)
    processor = with_frame_selection(processor, args.selector, num_frames=args.num_frames)  # the one line to add

    content = [{"type": "video", "video": args.video}, {"type": "text", "text": args.question}]
    messages = [{"role": "user", "content": content}]

    def answer() -> str:
        inputs = processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        ).to(model.device, dtype=model.dtype)
        output = model.generate(**inputs, max_new_tokens=args.max_new_tokens, do_sample=False)
        return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    print("answer:", answer())
    print("seen at:", ", ".join(f"{t:.2f} s" for t in last_selection(processor).timestamps))
    if args.stock:
        with disable_selection(processor):
            print("without selection:", answer())


if __name__ == "__main__":
    main()
