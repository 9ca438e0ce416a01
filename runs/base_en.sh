#!/usr/bin/env bash
# Makes the whisper-base table of README.md and docs/results.md.
#
#   runs/base_en.sh TEACHER TRAIN.jsonl TEST.jsonl DIGITS.jsonl OUT
#
#   TEACHER        openai/whisper-base, or a folder of the same layout
#   TRAIN.jsonl    the manifest to train on
#   TEST.jsonl     the manifest of the column "in domain"
#   DIGITS.jsonl   the manifest of the column "out of domain": strings of spoken digits
#   OUT            a folder for the runs, the exported students and the reports
#
# Three students are trained that differ in their objective only. Teacher and students are scored on
# both test sets, and the two tables with their intervals are printed at the end. The same command
# goes on after an interruption. DRY_RUN=1 prints every command and runs none.
#
# Hardware: 2 CPU cores. Hours: 0.9 for the three runs on the data of docs/results.md, and eight
# evaluations beside them.
set -euo pipefail

if (($# != 5)); then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
teacher=$1 train=$2 test=$3 digits=$4 out=$5
checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

# Prints a command, and runs it unless DRY_RUN is set.
run() {
    printf '%q ' "$@" && printf '\n'
    if [[ -z ${DRY_RUN:-} ]]; then "$@"; fi
}

# score NAME MODEL: error rates of a model on both test sets.
score() {
    run fastwhisper evaluate "$2" --data "$test" --report "$out/in-domain/$1.json"
    run fastwhisper evaluate "$2" --data "$digits" --normalizer digits \
        --report "$out/out-of-domain/$1.json"
}

# compare FOLDER NORMALIZER: the table of one test set.
compare() {
    local reports=() name
    for name in teacher askd distil ce; do reports+=("$out/$1/$name.json"); done
    run python "$checkout/benchmarks/compare_wer.py" "${reports[@]}" --normalizer "$2"
}

declare -A recipe=([askd]=askd_base_en [distil]=distil_whisper_base_en [ce]=ce_base_en)

run mkdir -p "$out/in-domain" "$out/out-of-domain"
score teacher "$teacher"
for name in askd distil ce; do
    run fastwhisper train "$checkout/configs/${recipe[$name]}.py" --run-dir "$out/runs/$name" \
        --teacher.path "$teacher" --data.train "$train" "--data.eval=$test" \
        --data.cache "$out/cache"
    run fastwhisper export "$out/runs/$name" --out "$out/students/$name"
    score "$name" "$out/students/$name"
done
compare in-domain english
compare out-of-domain digits
