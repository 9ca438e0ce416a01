# shellcheck shell=bash
# The code on the workers, and runs of it.

checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
commit=
worker_script=fastwhisper/worker.sh # below each worker's home folder

find_commit() {
    local wanted=${setting[commit]}
    if [[ -z $wanted && -n $(git -C "$checkout" status --porcelain --untracked-files=no) ]]; then
        bad_input "$checkout has uncommitted changes: commit them, or say --commit COMMIT"
    fi
    commit=$(git -C "$checkout" rev-parse --verify --quiet --end-of-options \
        "${wanted:-HEAD}^{commit}") ||
        bad_input "--commit is '$wanted'; $checkout has no such commit"
    git -C "$checkout" cat-file -e "$commit:launch/worker.sh" 2>/dev/null ||
        bad_input "--commit is '$wanted'; that commit has no launch/worker.sh; take a later one"
    if takes_arguments "$subcommand"; then find_recipe "${train_arguments[0]}"; fi
}

# Untracked files stay here, so a recipe has to be a file of the commit that the workers get.
find_recipe() {
    [[ $(git -C "$checkout" cat-file -t "$commit:$1" 2>/dev/null) == blob ]] ||
        bad_input "the recipe '$1' is no file of commit ${commit:0:12}, which workers get: commit it"
}

# The commit's own worker.sh installs it and stays on the worker for every later command.
sync_code() {
    local name=fastwhisper-$commit folder=$scratch
    if is_dry_run; then folder=/tmp; fi
    act git -C "$checkout" archive --format=tar.gz "--output=$folder/$name.tar.gz" "$commit" &&
        act tar -xzf "$folder/$name.tar.gz" -C "$folder" launch/worker.sh &&
        copy_to_workers "$folder/$name.tar.gz" "$name.tar.gz" &&
        copy_to_workers "$folder/launch/worker.sh" "$name.sh" &&
        on_workers bash "$name.sh" install "$commit" "$name"
}

# Every worker's line about the run: worker=HOST run=RUN state=STATE code=CODE log=LINE
run_lines() {
    local node words
    for node in "${nodes[@]}"; do
        ssh_words "$node" all bash "$worker_script" status "${setting[run-id]}"
        ask "$assumed_run" "${words[@]}" || return
    done
}

# has_state LINES STATE [CODES]: whether a worker is in that state, with one of the codes a|b|c.
has_state() { grep -qE "^worker=[^ ]+ run=[^ ]+ state=($2) code=(${3:-.*}) " <<<"$1"; }

assume_run() { assumed_run="worker=HOST run=${setting[run-id]} state=$1 code=$2 log="; }

refuse_if_running() {
    local lines
    assume_run absent -
    lines=$(run_lines) || die "the workers' state cannot be read; has 'sync' been run?"
    if has_state "$lines" running; then
        printf '%s\n' "$lines" >&2
        bad_input "${setting[run-id]} is running already: stop it first, or choose another --run-id"
    fi
}

# Starts the run on every worker; a second `start` of the same attempt does nothing there, so that
# gcloud may repeat it when a connection breaks.
start_run() {
    local attempt secrets=fastwhisper-${setting[run-id]}.env
    attempt=$(date -u +%Y%m%dT%H%M%SZ)-$RANDOM
    if is_dry_run; then attempt=ATTEMPT; fi
    if [[ -n ${setting[secrets]} ]]; then
        copy_to_workers "${setting[secrets]}" "$secrets" || return
    fi
    if ! on_workers bash "$worker_script" start "${setting[run-id]}" "$attempt" "$commit" \
        train "${train_arguments[0]}" --run-dir "${setting[runs]}/${setting[run-id]}" \
        "${train_arguments[@]:1}"; then
        say "not every worker started; ending it where it runs"
        if [[ -n ${setting[secrets]} ]]; then on_workers rm -f "$secrets" || true; fi
        on_workers bash "$worker_script" stop "${setting[run-id]}" 60 || true
        return 1
    fi
    assume_run exited 0
}

show_status() {
    local state
    state=$(queued_state) || exit 1
    printf '%s: %s\n' "${setting[name]}" "$state"
    [[ $state == ACTIVE ]] || return 0
    if [[ -n ${setting[run-id]} ]]; then
        on_workers bash "$worker_script" status "${setting[run-id]}"
    else
        on_workers bash "$worker_script" status
    fi
}

show_log() {
    local node=${setting[name]} words follow=()
    if ((setting[slices] > 1)); then node+=-${setting[slice]}; fi
    if [[ -n ${setting[follow]} ]]; then follow=(follow); fi
    ssh_words "$node" "${setting[worker]}" \
        bash "$worker_script" log "${setting[run-id]}" "${setting[lines]}" "${follow[@]}"
    act "${words[@]}"
}
