# shellcheck shell=bash
# Commands: how they are printed, run, and sent to workers.

place=()       # the options that name project and zone
nodes=()       # the slices' names
scratch=       # a private folder, removed at the end
assumed_state= # what a dry run takes the queued resource's state to be
assumed_run=   # ... and a worker's line about the run

is_dry_run() { [[ -n ${setting[dry-run]} ]]; }

say() { printf '== %s\n' "$*" >&2; }

# The words as one line of shell that gives the same words again.
quoted() {
    local text
    printf -v text ' %q' "$@"
    printf '%s\n' "${text# }"
}

# act COMMAND...: runs it, or prints it on a dry run. Descriptor 3 is the script's own output.
act() {
    if is_dry_run; then quoted "$@" >&3; else "$@" </dev/null; fi
}

# ask ANSWER COMMAND...: prints what the command prints; on a dry run, the answer assumed.
ask() {
    local answer=$1
    shift
    if is_dry_run; then
        { quoted "$@" && printf '# assumed: %s\n' "$answer"; } >&3
        printf '%s\n' "$answer"
    else
        "$@" </dev/null
    fi
}

use_settings() {
    local number
    place=("--project=${setting[project]}" "--zone=${setting[zone]}")
    nodes=("${setting[name]}")
    if ((setting[slices] > 1)); then
        nodes=()
        for ((number = 0; number < setting[slices]; number++)); do
            nodes+=("${setting[name]}-$number")
        done
    fi
    scratch=$(mktemp -d)
}

# A pause that Ctrl-C and SIGTERM end at once.
pause() {
    if is_dry_run; then
        quoted sleep "$1" >&3
        return
    fi
    sleep "$1" &
    wait $!
}

ssh_words() { # ssh_words NODE WORKER WORD...: fills `words` with the gcloud command
    local node=$1 worker=$2
    shift 2
    words=(gcloud compute tpus tpu-vm ssh "$node" "${place[@]}")
    words+=("--worker=$worker" "--command=$(quoted "$@")")
}

# on_workers WORD...: runs the command on every worker of every slice at once.
on_workers() {
    local node words pids=() pid status=0
    for node in "${nodes[@]}"; do
        ssh_words "$node" all "$@"
        if is_dry_run; then
            act "${words[@]}"
        else
            "${words[@]}" </dev/null &
            pids+=($!)
        fi
    done
    for pid in "${pids[@]}"; do wait "$pid" || status=1; done
    return "$status"
}

# copy_to_workers FILE NAME: into every worker's home folder.
copy_to_workers() {
    local node
    for node in "${nodes[@]}"; do
        act gcloud compute tpus tpu-vm scp "$1" "$node:$2" "${place[@]}" --worker=all || return
    done
}
