#!/usr/bin/env bash
# Trains on Cloud TPU slices: create, sync, run, status, logs, stop, resume, delete.
#
#   launch/tpu.sh create --project my-project --zone us-west4-a --name askd-16 \
#       --accelerator-type v5litepod-16 --spot
#
# Every command has --help and --dry-run. What happens on a worker is in worker.sh; docs/tpu.md
# leads from an empty project to a trained student.
#
# Exit codes: 0 done, 1 failed, 2 bad input, 75 interrupted and resumable.
set -euo pipefail

if ((BASH_VERSINFO[0] < 5)); then
    echo "tpu.sh: this is bash $BASH_VERSION; it needs 5 or later" >&2
    exit 2
fi

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
source "$here/lib/options.sh"
# shellcheck source-path=SCRIPTDIR
source "$here/lib/settings.sh"
# shellcheck source-path=SCRIPTDIR
source "$here/lib/gcloud.sh"
# shellcheck source-path=SCRIPTDIR
source "$here/lib/slices.sh"
# shellcheck source-path=SCRIPTDIR
source "$here/lib/runs.sh"
# shellcheck source-path=SCRIPTDIR
source "$here/lib/resume.sh"

clean_up() { if [[ -n $scratch ]]; then rm -rf -- "$scratch"; fi; }

interrupted() {
    trap - INT TERM
    jobs -p | xargs -r kill 2>/dev/null || true
    say "interrupted; what was asked for or started goes on: see 'status', 'stop' and 'delete'"
    exit 75
}

confirm_delete() {
    local answer=
    if [[ -n ${setting[yes]} ]] || is_dry_run; then return; fi
    [[ -t 0 ]] || bad_input "'delete' asks on a terminal; without one, say --yes"
    read -r -p "Delete ${setting[name]} in ${setting[project]}? Type its name: " answer
    [[ $answer == "${setting[name]}" ]] || bad_input "'$answer' is not ${setting[name]}; it stays"
}

main() {
    read_command_line "$@"
    take_defaults
    check_settings
    is_dry_run || command -v gcloud >/dev/null ||
        bad_input "gcloud is not on PATH; install it: https://cloud.google.com/sdk/docs/install"
    use_settings
    if belongs commit "${options_of[$subcommand]}"; then find_commit; fi
    assumed_state=ACTIVE
    assume_run running -
    case $subcommand in
        create) create_slice && wait_until_active ;;
        sync) sync_code ;;
        run) refuse_if_running && start_run ;;
        status) show_status ;;
        logs) show_log ;;
        stop) on_workers bash "$worker_script" stop "${setting[run-id]}" "${setting[grace]}" ;;
        resume) resume_run ;;
        delete) confirm_delete && delete_slice ;;
    esac
}

exec 3>&1
trap clean_up EXIT
trap interrupted INT TERM
main "$@"
