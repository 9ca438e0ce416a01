#!/usr/bin/env bash
# What launch/tpu.sh asks of one worker: the code of a commit, and runs of fastwhisper on it.
#
#   worker.sh install COMMIT NAME         unpack ~/NAME.tar.gz and install it, once, as COMMIT
#   worker.sh start RUN ATTEMPT COMMIT ARGUMENT...     fastwhisper ARGUMENT..., detached
#   worker.sh status [RUN]                one line a run
#   worker.sh log RUN LINES [follow]      the log's end
#   worker.sh failure RUN LINES           the log's end if the run ended with an error
#   worker.sh stop RUN SECONDS            SIGTERM to the run's process group, then wait
#
# ~/fastwhisper/runs/RUN holds `log`, `process` (pid, which is also the process group, and attempt)
# and, once the run has ended, `exit_code`. A process belongs to a run if it is in the recorded
# group and carries the attempt in its environment: numbers that the system has reused never match.
set -euo pipefail

root=$HOME/fastwhisper
python_version=3.12 # the images bring 3.10, which is too old; uv fetches this one

fail() {
    printf '%s: %s\n' "$(hostname)" "$1" >&2
    exit "${2:-1}"
}

find_uv() {
    export PATH=$HOME/.local/bin:$PATH
    command -v uv >/dev/null || python3 -m pip install --quiet --user uv
    command -v uv >/dev/null || fail "uv could not be installed with python3 -m pip"
}

# The copied files (NAME.tar.gz, and this script as NAME.sh) go when the code is there, whole.
install_code() {
    local copied=$HOME/$2 code=$root/code/$1
    mkdir -p "$root/code" "$root/runs"
    chmod 700 "$root"
    exec 9>"$root/lock"
    flock 9
    if [[ -e $code/.installed ]]; then
        printf '%s: %s is installed already\n' "$(hostname)" "$1"
    else
        rm -rf -- "$code"
        mkdir "$code"
        tar -xzf "$copied.tar.gz" -C "$code"
        find_uv
        uv venv --quiet --python "$python_version" "$code/.venv"
        uv pip install --quiet --python "$code/.venv/bin/python" "${code}[tpu]"
        touch "$code/.installed"
        printf '%s: %s installed\n' "$(hostname)" "$1"
    fi
    cp -- "$code/launch/worker.sh" "$root/worker.sh.new"
    mv -- "$root/worker.sh.new" "$root/worker.sh"
    rm -f -- "$copied.tar.gz" "$copied.sh"
}

# The processes of a run that are alive.
members() {
    local run=$1 group attempt pid
    [[ -f $root/runs/$run/process ]] || return 0
    read -r group attempt <"$root/runs/$run/process"
    for pid in $(pgrep -g "$group" || true); do
        if grep -qzxF "FASTWHISPER_ATTEMPT=$run/$attempt" "/proc/$pid/environ" 2>/dev/null; then
            printf '%s\n' "$pid"
        fi
    done
}

# Exports NAME=VALUE lines of the file that was copied for this run, and removes it.
take_secrets() {
    local line file=$HOME/fastwhisper-$1.env
    [[ -f $file ]] || return 0
    while IFS= read -r line || [[ -n $line ]]; do
        # shellcheck disable=SC2163 # the line is the assignment
        if [[ $line =~ ^[A-Za-z_][A-Za-z0-9_]*= ]]; then export "$line"; fi
    done <"$file"
    rm -f -- "$file"
}

# The same attempt may be asked for twice (a connection that broke): the second time does nothing.
start_run() {
    local run=$1 attempt=$2 commit=$3 folder=$root/runs/$1 tries
    shift 3
    take_secrets "$run" # first: whatever comes of this, the file is gone
    [[ -e $root/code/$commit/.installed ]] || fail "$commit is not installed here; sync it first" 2
    mkdir -p "$folder"
    exec 9>"$folder/lock"
    flock 9
    if [[ -f $folder/process && $(cut -d ' ' -f 2 "$folder/process") == "$attempt" ]]; then
        printf '%s: %s, attempt %s, was started already\n' "$(hostname)" "$run" "$attempt"
        return
    fi
    [[ -z $(members "$run") ]] || fail "$run is running already; stop it first" 2
    rm -f -- "$folder/exit_code"
    FASTWHISPER_ATTEMPT=$run/$attempt setsid bash "$root/worker.sh" supervise \
        "$folder" "$root/code/$commit" "$@" </dev/null >>"$folder/log" 2>&1 9>&- &
    printf '%s %s\n' "$!" "$attempt" >"$folder/process"
    for tries in {1..50}; do # until it can be seen, which is when setsid has become it
        if [[ -n $(members "$run") || -f $folder/exit_code ]]; then
            printf '%s: %s, attempt %s, started\n' "$(hostname)" "$run" "$attempt"
            return
        fi
        sleep 0.1
    done
    fail "$run did not start within $((tries / 10)) s; see its log"
}

# Leads the run's process group: bash holds its traps until the foreground process has ended, so
# SIGTERM reaches fastwhisper and its exit code is still written. Nothing of the run outlives it.
supervise() {
    local folder=$1 code=$2 status=0
    shift 2
    trap : TERM HUP
    printf '== %s: fastwhisper' "$FASTWHISPER_ATTEMPT"
    printf ' %q' "$@"
    printf '\n'
    cd "$code"
    .venv/bin/fastwhisper "$@" || status=$?
    printf '%s\n' "$status" >"$folder/exit_code.new"
    mv -- "$folder/exit_code.new" "$folder/exit_code"
    kill -KILL -- "-$$"
}

# worker=HOST run=RUN state=absent|running|exited|died code=CODE|- log=LAST LINE
show_status() {
    local run=$1 folder=$root/runs/$1 state=absent code=- last=
    if [[ -n $(members "$run") ]]; then
        state=running
    elif [[ -f $folder/exit_code ]]; then
        state=exited
        code=$(<"$folder/exit_code")
    elif [[ -f $folder/process ]]; then
        state=died
    fi
    if [[ -f $folder/log ]]; then
        last=$(tail -n 1 "$folder/log" | tr -d '[:cntrl:]' | cut -c 1-200)
    fi
    printf 'worker=%s run=%s state=%s code=%s log=%s\n' \
        "$(hostname)" "$run" "$state" "$code" "$last"
}

show_all() {
    local folder
    for folder in "$root"/runs/*/; do
        if [[ -d $folder ]]; then show_status "$(basename "$folder")"; fi
    done
}

show_log() {
    local log=$root/runs/$1/log
    [[ -f $log ]] || fail "$1 has no log here"
    if [[ ${3:-} == follow ]]; then
        tail -n "$2" -F "$log"
    else
        tail -n "$2" "$log"
    fi
}

show_failure() {
    local folder=$root/runs/$1 code
    [[ -f $folder/exit_code ]] || return 0
    code=$(<"$folder/exit_code")
    if [[ $code != 0 && $code != 75 ]]; then
        printf '%s: %s ended with exit code %s\n' "$(hostname)" "$1" "$code"
        tail -n "$2" "$folder/log" | sed "s/^/$(hostname): /"
    fi
}

stop_run() {
    local run=$1 seconds=$2 group
    if [[ -n $(members "$run") ]]; then
        read -r group _ <"$root/runs/$run/process"
        kill -TERM -- "-$group" || true # it may end by itself just now
        while [[ -n $(members "$run") && $seconds -gt 0 ]]; do
            sleep 1
            seconds=$((seconds - 1))
        done
    fi
    show_status "$run"
    [[ -z $(members "$run") ]] || fail "$run has not stopped yet; it was asked to"
}

command=${1:-}
shift || true
case $command in
    install) install_code "$@" ;;
    start) start_run "$@" ;;
    supervise) supervise "$@" ;;
    status) if (($#)); then show_status "$1"; else show_all; fi ;;
    log) show_log "$@" ;;
    failure) show_failure "$@" ;;
    stop) stop_run "$@" ;;
    *) fail "worker.sh install|start|status|log|failure|stop, not '$command'" 2 ;;
esac
