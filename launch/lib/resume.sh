# shellcheck shell=bash
# A run brought to its end: over preemptions, not over bugs.

# What the workers say: failed, running, again, absent or done.
#
# A worker that ended with 1 or 2 met a bug or bad input (any other code of a program that ended by
# itself counts as that), which the next attempt would meet as well. One that ended with 75 saved
# and stopped; one that ended by a signal (128 and more) or without a code was ended from outside.
judge() {
    if has_state "$1" exited '[1-9]|[1-689][0-9]|7[0-46-9]|1[01][0-9]|12[0-7]'; then
        echo failed
    elif has_state "$1" running; then
        echo running
    elif has_state "$1" 'died|exited' '-|75|12[89]|1[3-9][0-9]|2[0-9][0-9]'; then
        echo again
    elif has_state "$1" absent; then
        echo absent
    else
        echo "done"
    fi
}

# Installs the commit on the workers, once for each slice that resume meets or makes.
sync_once() {
    if [[ -z $synced ]]; then sync_code || return; fi
    synced=yes
}

# Waits while the run goes on. Sets `outcome`: done, again, failed, absent, queued or lost.
watch_run() {
    local lines misses=0 settled=
    while ((misses < 5)); do
        if ! outcome=$(slice_condition); then
            misses=$((misses + 1))
        elif [[ $outcome != ready ]]; then
            return 0
        elif ! sync_once || ! lines=$(run_lines); then
            misses=$((misses + 1))
        else
            misses=0
            outcome=$(judge "$lines")
            case $outcome in
                "done" | absent) return 0 ;;
                again | failed)
                    # Workers end shortly before a preemption shows: look once more.
                    if [[ -n $settled ]]; then return 0; fi
                    settled=yes
                    ;;
                running) settled= ;;
            esac
        fi
        pause "${setting[poll]}"
    done
    die "gcloud failed $misses times in a row; the run is left as it is: try the same command later"
}

# Makes the slice ready, whatever the outcome was, and starts the run.
start_again() {
    if [[ $outcome == lost ]]; then
        synced=
        delete_slice && create_slice || return 1
    fi
    if [[ $outcome == lost || $outcome == queued ]]; then wait_until_active || return; fi
    sync_once && start_run || return 1
}

# The end of each failed worker's log, then exit code 1.
give_up() {
    on_workers bash "$worker_script" failure "${setting[run-id]}" "${setting[lines]}" || true
    die "${setting[run-id]} failed and is not tried again; 'stop' ends workers that still run"
}

resume_run() {
    local outcome synced='' starts=0 delay=${setting[backoff]} status
    assumed_state=SUSPENDED
    while true; do
        watch_run
        case $outcome in
            "done") say "${setting[run-id]} is done" && return ;;
            failed) give_up ;;
        esac
        if ((starts == setting[retries])); then
            say "${setting[run-id]} was started $starts times and is not done;" \
                "the same command goes on"
            exit 75
        fi
        if ((starts > 0)); then
            pause "$delay"
            delay=$((delay * 2 < 1800 ? delay * 2 : 1800))
        fi
        starts=$((starts + 1))
        say "start $starts of at most ${setting[retries]}"
        status=0
        start_again || status=$?
        if ((status == 75)); then exit 75; fi
        if ((status != 0)); then say "start $starts did not succeed"; fi
    done
}
