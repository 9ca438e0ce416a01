#!/usr/bin/env bash
# Makes the teacher of `fastwhisper demo` in the folder WORK, which takes 15 minutes on two cores:
#
#     runs/demo_teacher.sh WORK
#
# Run it again after an interruption: it keeps what is complete and resumes the training. The demo
# ships these files of WORK/teacher: config.json, generation_config.json, preprocessor_config.json,
# tokenizer.json, tokenizer_config.json and model.safetensors.
set -euo pipefail

work=${1:?give a folder: runs/demo_teacher.sh WORK}
recipe=$(dirname "$0")/../fastwhisper_jax/demo/recipes/teacher.py

python -m fastwhisper_jax.demo.teacher_inputs "$work"
fastwhisper train "$recipe" --run-dir "$work/run" --teacher.path "$work/untrained" \
    --data.train "$work/speech/words.jsonl" "$work/speech/train.jsonl" \
    --data.eval "$work/speech/dev.jsonl"
fastwhisper export "$work/run" --out "$work/teacher" --dtype float16
