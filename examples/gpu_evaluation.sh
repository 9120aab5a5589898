#!/usr/bin/env bash
# Video-MME, LongVideoBench and MLVU with one video model and many frame selectors: uniform sampling, algorithms over SigLIP 2
# and over an embedding model, and our policy; intervals of the paired differences to uniform sampling.
#
#   pip install 'refocus-select[data,st]'
#   MODEL=Qwen/Qwen2.5-VL-7B-Instruct FRAMES="8 32" bash examples/gpu_evaluation.sh \
#       videomme=data/Video-MME longvideobench=data/LongVideoBench mlvu=data/MLVU
#
# What it costs is printed first; DRY_RUN=1 stops there. Everything is kept in OUT: the same command goes on where it was
# interrupted, and more selectors, encoders or numbers of frames may join later. GPUS=8 uses eight of them.
set -euo pipefail

MODEL=${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}
FRAMES=${FRAMES:-"8 32"}
SELECTORS=${SELECTORS:-"topk aks mdp3 mini-policy"}
ENCODERS=${ENCODERS:-"google/siglip2-so400m-patch16-384 Qwen/Qwen3-VL-Embedding-2B"}
OUT=${OUT:-out/gpu_evaluation}
GPUS=${GPUS:-1}
PYTHON=${PYTHON:-python}
QA_ARGUMENTS=${QA_ARGUMENTS:-}  # more arguments of `refocus-select evaluate qa`, e.g. "--limit 200"

[[ $# -gt 0 ]] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$OUT"
launch=("$PYTHON" -m)
if ((GPUS > 1)); then
    launch=("$PYTHON" -m torch.distributed.run --nproc-per-node "$GPUS" -m)
fi

# One table of questions per benchmark, and what is ahead.
"$PYTHON" - "$OUT" "$FRAMES" "$SELECTORS" "$ENCODERS" "$@" <<'PLAN'
import sys
from pathlib import Path

from refocus_select import open_video
from refocus_select.evaluation.benchmarks import read_benchmark
from refocus_select.files import write_text
from refocus_select.plain_text import json_text
from refocus_select.questions import as_row

out, frames, selectors, encoders, *benchmarks = sys.argv[1:]
sizes, pairs = [int(k) for k in frames.split()], len(selectors.split()) * len(encoders.split())
for given in benchmarks:
    name, _, folder = given.partition("=")
    found = read_benchmark(name, folder)
    if not found.questions:
        sys.exit(f"{name}: no question with a video in {folder}; {len(found.missing)} videos are missing")
    videos = sorted({question.video for question in found.questions})
    step = max(1, len(videos) // 50)
    seconds = 0.0
    for path in videos[::step]:
        with open_video(path) as video:
            seconds += video.metadata.duration
    hours = seconds / 3600 * len(videos) / len(videos[::step])
    answers = len(found.questions) * len(sizes) * (pairs + 1)
    print(
        f"{name}: {len(found.questions)} questions about {len(videos)} videos, {hours:.1f} hours; {len(found.missing)} "
        f"videos are missing.\n  {hours * len(encoders.split()):.1f} hours of video to decode and encode, once per encoder; "
        f"{answers} answers of the model with {frames} frames ({pairs + 1} selections)"
    )
    write_text(Path(out) / f"{name}.jsonl", "".join(json_text(as_row(q)) + "\n" for q in found.questions))
PLAN
[[ -z ${DRY_RUN:-} ]] || exit 0

for given in "$@"; do
    name=${given%%=*} folder=${given#*=}
    selections=()
    for encoder in $ENCODERS; do
        for selector in $SELECTORS; do
            label="$selector+${encoder##*/}"
            parts=()
            for k in $FRAMES; do
                part="$OUT/$name.$label.$k.jsonl"
                if [[ ! -f $part ]]; then
                    "${launch[@]}" refocus_select batch "$OUT/$name.jsonl" --out "$part" -n "$k" --resume \
                        --selector "$selector" --encoder "$encoder" --cache "$OUT/encodings"
                fi
                parts+=("$part")
            done
            cat "${parts[@]}" >"$OUT/$name.$label.jsonl"
            selections+=("$OUT/$name.$label.jsonl=$label")
        done
    done
    # shellcheck disable=SC2086
    "${launch[@]}" refocus_select evaluate qa "$name" "$folder" --model "$MODEL" --out "$OUT/$name" \
        --selectors uniform --selections "${selections[@]}" --frames $FRAMES $QA_ARGUMENTS
done
