#!/bin/sh
# Video-MME with selected frames and with uniform sampling, on one code path of lmms-eval (pip install lmms-eval).
#   sh examples/lmms_eval.sh Qwen/Qwen2.5-VL-7B-Instruct 32
# record=… writes the question and the chosen times of every answer.
set -eu
model=${1:-Qwen/Qwen2.5-VL-7B-Instruct}
frames=${2:-32}
tasks=${3:-videomme}

for selector in mini-policy uniform; do
    python -m lmms_eval --model refocus_select --tasks "$tasks" --batch_size 1 \
        --model_args "pretrained=$model,selector=$selector,num_frames=$frames,record=out/$selector.jsonl" \
        --log_samples --output_path "out/$selector"
done
