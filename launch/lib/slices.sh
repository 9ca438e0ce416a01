# shellcheck shell=bash
# Slices: the queued resource that asks for them, its state, and its end.

label=launcher=fastwhisper # on every node that create asks for; nothing without it is deleted

# describe ANSWER KIND NAME KEY: one field, or MISSING; fails when gcloud cannot tell.
describe() {
    local value
    if value=$(ask "$1" gcloud compute tpus "$2" describe "$3" "${place[@]}" "--format=value($4)" \
        2>"$scratch/error"); then
        printf '%s\n' "$value"
    elif grep -q NOT_FOUND "$scratch/error"; then
        echo MISSING
    else
        cat "$scratch/error" >&2
        return 1
    fi
}

queued_state() { describe "$assumed_state" queued-resources "${setting[name]}" state.state; }

create_slice() {
    local request=(gcloud compute tpus queued-resources create "${setting[name]}" "${place[@]}")
    if ((setting[slices] > 1)); then
        request+=("--node-count=${setting[slices]}" "--node-prefix=${setting[name]}")
    else
        request+=("--node-id=${setting[name]}")
    fi
    request+=("--accelerator-type=${setting[accelerator-type]}")
    request+=("--runtime-version=${setting[runtime-version]}" "--labels=$label")
    if [[ -n ${setting[service-account]} ]]; then
        request+=("--service-account=${setting[service-account]}")
    fi
    if [[ -n ${setting[spot]} ]]; then request+=(--spot); fi
    act "${request[@]}" --quiet || return 1
    assumed_state=ACTIVE
}

# 0 when the slice is there, 1 when it will not come, 75 when the time is up.
wait_until_active() {
    local state before='' looks=$((setting[wait] * 60 / setting[poll] + 1))
    while ((looks-- > 0)); do
        state=$(queued_state) || return 1
        if [[ $state != "$before" ]]; then say "${setting[name]}: $state"; fi
        before=$state
        case $state in
            ACTIVE) return 0 ;;
            FAILED | SUSPENDING | SUSPENDED | DELETING | MISSING)
                say "${setting[name]} will not become ACTIVE; what gcloud says of it:"
                act gcloud compute tpus queued-resources describe "${setting[name]}" "${place[@]}" \
                    "--format=yaml(state)" >&2 || true
                return 1
                ;;
        esac
        if ((looks > 0)); then pause "${setting[poll]}"; fi
    done
    say "${setting[name]} is still $state after ${setting[wait]} min and stays in the queue:" \
        "'resume' waits on, 'delete' gives it up"
    return 75
}

# Deletes the queued resource and its slices, if create made them.
delete_slice() {
    local owner
    owner=$(describe "${label#*=}" queued-resources "${setting[name]}" \
        "tpu.nodeSpec[0].node.labels.${label%=*}") || return 1
    if [[ $owner == MISSING ]]; then
        say "${setting[name]} does not exist"
        return 0
    fi
    if [[ $owner != "${label#*=}" ]]; then
        say "${setting[name]} has no label $label: create did not make it, so it stays"
        return 1
    fi
    act gcloud compute tpus queued-resources delete "${setting[name]}" "${place[@]}" \
        --force --quiet || return 1
    assumed_state=MISSING
}

# What resume has to know: ready, queued, lost (preempted, failed, deleted).
slice_condition() {
    local state node
    state=$(queued_state) || return 1
    case $state in
        ACTIVE) ;;
        WAITING_FOR_RESOURCES | PROVISIONING | ACCEPTED | CREATING)
            echo queued
            return
            ;;
        *) say "${setting[name]}: $state" && echo lost && return ;;
    esac
    for node in "${nodes[@]}"; do
        # The queued resource may still be ACTIVE when one of its slices is no more.
        state=$(describe READY tpu-vm "$node" state) || return 1
        case $state in
            READY | CREATING | STARTING | RESTARTING | REIMAGING | REPAIRING) ;;
            *) say "$node: $state" && echo lost && return ;;
        esac
    done
    echo ready
}
