# shellcheck shell=bash
# What launch/tpu.sh takes: commands, their options, and --help made of both.

commands=(create sync run status logs stop resume delete)

declare -A summary=(
    [create]="ask for a TPU slice (a queued resource) and wait until it is there"
    [sync]="install this checkout, as of a commit, on every worker"
    [run]="start 'fastwhisper train' on every worker, detached"
    [status]="the slice's state, and every worker's run, exit code and last log line"
    [logs]="the end of one worker's log"
    [stop]="ask a run to save and stop (SIGTERM), and wait for it"
    [resume]="create, sync and run as needed until the run is done; again after preemption"
    [delete]="delete the slice that create made"
)
declare -A options_of=(
    [create]="accelerator-type runtime-version spot slices service-account wait poll"
    [sync]="slices commit"
    [run]="slices commit run-id runs secrets"
    [status]="slices run-id"
    [logs]="slices slice worker run-id lines follow"
    [stop]="slices run-id grace"
    [delete]="yes"
)
options_of[resume]="accelerator-type runtime-version spot slices service-account wait poll"
options_of[resume]+=" commit run-id runs secrets retries backoff lines"

example_run="--run-id askd --runs gs://my-bucket/runs"
example_run+=" -- configs/askd_large_v3.py --data.train gs://my-bucket/train"
declare -A example=(
    [create]="--accelerator-type v5litepod-16 --spot"
    [sync]=""
    [run]="$example_run"
    [status]="--run-id askd"
    [logs]="--run-id askd --worker 2 --follow"
    [stop]="--run-id askd"
    [resume]="--accelerator-type v5litepod-16 --spot $example_run"
    [delete]="--yes"
)

# option -> VALUE|environment variable|default|what it is; without a VALUE it is a switch.
declare -A option=(
    [project]="PROJECT|PROJECT||the Google Cloud project"
    [zone]="ZONE|ZONE||the zone, such as us-west4-a"
    [name]="NAME|TPU_NAME||of the queued resource and of its slices"
    [dry-run]="|||print every command, run none"
    [accelerator-type]="TYPE|ACCELERATOR_TYPE||v4-N, v5litepod-N, v5p-N or v6e-N"
    [runtime-version]="VERSION|RUNTIME_VERSION||the image (default: the generation's)"
    [spot]="|||cheaper, can be preempted at any time"
    [slices]="N|SLICES|1|number of slices"
    [service-account]="EMAIL|SERVICE_ACCOUNT||who the workers are (default: the project's)"
    [wait]="MINUTES||120|wait for the slice no longer than this"
    [poll]="SECONDS||30|between two looks"
    [commit]="COMMIT|||what to install (default: HEAD, if no tracked file is changed)"
    [run-id]="ID|RUN_ID||the run's name; the same again continues it"
    [runs]="FOLDER|RUNS||holds the run directories, such as gs://my-bucket/runs"
    [secrets]="FILE|||NAME=VALUE lines for the run's environment; mode 600"
    [slice]="N||0|which slice, from 0"
    [worker]="N||0|which worker, from 0"
    [lines]="N||40|log lines to show"
    [follow]="|||go on as the log grows"
    [grace]="SECONDS||600|wait for the run to stop no longer than this"
    [retries]="N||10|start the run at most this often"
    [backoff]="SECONDS||60|before the second start; then doubled, up to 30 min"
    [yes]="|||do not ask"
)
common="project zone name dry-run"

describe_option() {
    local value variable default text
    IFS='|' read -r value variable default text <<<"${option[$1]}"
    if [[ -n $default ]]; then text+=" (default: $default)"; fi
    if [[ -n $variable ]]; then text+=" [\$$variable]"; fi
    printf '  %-26s %s\n' "--$1${value:+ $value}" "$text"
}

print_help() {
    local name
    if [[ -z $1 ]]; then
        printf 'launch/tpu.sh COMMAND [OPTION...]: train on Cloud TPU slices with gcloud\n\n'
        for name in "${commands[@]}"; do printf '  %-8s %s\n' "$name" "${summary[$name]}"; done
        printf "\n'launch/tpu.sh COMMAND --help' lists its options; see docs/tpu.md as well.\n"
        return
    fi
    printf 'launch/tpu.sh %s: %s\n\n' "$1" "${summary[$1]}"
    for name in $common ${options_of[$1]}; do describe_option "$name"; done
    if takes_arguments "$1"; then
        printf '  %-26s %s\n' "-- RECIPE [OPTION...]" \
            "for 'fastwhisper train'; its --run-dir is FOLDER/ID"
    fi
    printf '\nExample:\n  launch/tpu.sh %s --dry-run' "$1"
    printf ' --project my-project --zone us-west4-a --name askd-16'
    printf '%s\n' "${example[$1]:+ ${example[$1]}}"
}

takes_arguments() { [[ $1 == run || $1 == resume ]]; }

belongs() { # belongs WORD LIST: whether the list, separated by spaces, holds the word
    [[ " $2 " == *" $1 "* ]]
}
