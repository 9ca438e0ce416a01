# shellcheck shell=bash
# Settings of launch/tpu.sh: read from options, then from the environment, checked before use.

declare -A setting=()
train_arguments=()
subcommand=

die() {
    printf 'tpu.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

bad_input() { die "$1" 2; }

# Fills subcommand, setting and train_arguments; options stand before or after the command.
read_command_line() {
    local name wants_help=
    while (($#)); do
        case $1 in
            --)
                shift
                train_arguments=("$@")
                break
                ;;
            --help | -h) wants_help=yes ;;
            --*)
                name=${1#--}
                name=${name%%=*}
                [[ -n $name && -n ${option[$name]:-} ]] ||
                    bad_input "there is no option $1; see launch/tpu.sh COMMAND --help"
                if [[ ${option[$name]} == "|"* ]]; then
                    [[ $1 != *=* ]] || bad_input "--$name takes no value"
                    setting[$name]=yes
                elif [[ $1 == *=* ]]; then
                    setting[$name]=${1#*=}
                else
                    (($# > 1)) || bad_input "--$name needs a value: --$name ${option[$name]%%|*}"
                    setting[$name]=$2
                    shift
                fi
                ;;
            *)
                [[ -z $subcommand ]] ||
                    bad_input "'$1' after '$subcommand'; what fastwhisper gets stands after --"
                belongs "$1" "${commands[*]}" || bad_input "'$1' is not one of ${commands[*]}"
                subcommand=$1
                ;;
        esac
        shift
    done
    if [[ -n $wants_help || -z $subcommand ]]; then
        print_help "$subcommand"
        [[ -n $wants_help ]] || exit 2
        exit 0
    fi
}

take_defaults() {
    local name variable default
    for name in "${!setting[@]}"; do
        belongs "$name" "$common ${options_of[$subcommand]}" ||
            bad_input "'$subcommand' has no option --$name; see launch/tpu.sh $subcommand --help"
    done
    for name in "${!option[@]}"; do
        IFS='|' read -r _ variable default _ <<<"${option[$name]}"
        if [[ -n $variable ]]; then default=${!variable:-$default}; fi
        setting[$name]=${setting[$name]-$default}
    done
}

# must_match NAME PATTERN EXAMPLE
must_match() {
    local variable
    IFS='|' read -r _ variable _ _ <<<"${option[$1]}"
    [[ -n ${setting[$1]} ]] ||
        bad_input "'$subcommand' needs --$1${variable:+, or \$$variable}, such as $3"
    [[ ${setting[$1]} =~ ^($2)$ ]] || bad_input "--$1 is '${setting[$1]}'; it must be like $3"
}

check_settings() {
    local name used=${options_of[$subcommand]}
    must_match project '[a-z][a-z0-9.:-]*[a-z0-9]' my-project
    must_match zone '[a-z]+-[a-z]+[0-9]+-[a-z]' us-west4-a
    must_match name '[a-z]([a-z0-9-]{0,38}[a-z0-9])?' askd-16
    for name in slices wait poll lines grace retries backoff; do
        if belongs "$name" "$used"; then must_match "$name" '[1-9][0-9]{0,5}' 10; fi
    done
    for name in slice worker; do
        if belongs "$name" "$used"; then must_match "$name" '0|[1-9][0-9]{0,3}' 0; fi
    done
    if belongs accelerator-type "$used"; then
        must_match accelerator-type '(v4|v5litepod|v5p|v6e)-[1-9][0-9]*' \
            'v5litepod-16 (v5e), v4-32, v5p-32 or v6e-16'
        : "${setting[runtime-version]:=$(runtime_version "${setting[accelerator-type]}")}"
        must_match runtime-version '[a-z0-9][a-z0-9.-]*' v2-alpha-tpuv5-lite
    fi
    if [[ -n ${setting[service-account]} ]] && belongs service-account "$used"; then
        must_match service-account '[a-z0-9][a-z0-9@.:-]+' me@my-project.iam.gserviceaccount.com
    fi
    if belongs run-id "$used" && [[ $subcommand != status || -n ${setting[run-id]} ]]; then
        must_match run-id '[A-Za-z0-9][A-Za-z0-9._-]{0,63}' askd
    fi
    if takes_arguments "$subcommand"; then
        check_run
    elif ((${#train_arguments[@]})); then
        bad_input "'$subcommand' takes nothing after --"
    fi
}

check_run() {
    local argument
    must_match runs '[^-].*' gs://my-bucket/runs
    setting[runs]=${setting[runs]%/}
    if [[ $subcommand == resume ]]; then
        must_match runs 'gs://.+' 'gs://my-bucket/runs: a disk is lost with its slice'
    fi
    [[ ${train_arguments[0]:--} != -* ]] ||
        bad_input "give the recipe and its options after --: -- configs/askd_large_v3.py"
    for argument in "${train_arguments[@]}"; do
        [[ $argument != --run-dir* ]] ||
            bad_input "--run-dir is --runs and --run-id: ${setting[runs]}/${setting[run-id]}"
    done
    if [[ -n ${setting[secrets]} ]]; then check_secrets "${setting[secrets]}"; fi
}

check_secrets() {
    [[ -f $1 ]] || bad_input "--secrets: $1 is not a file"
    [[ -n $(find "$1" -perm 600) ]] || bad_input "--secrets: others may read $1; chmod 600 $1"
    if grep -qvE '^([A-Za-z_][A-Za-z0-9_]*=.*)?$' -- "$1"; then
        bad_input "--secrets: every line of $1 must be NAME=VALUE"
    fi
}

# The images that Google names for JAX: https://cloud.google.com/tpu/docs/runtimes
runtime_version() {
    case $1 in
        v4-*) echo tpu-ubuntu2204-base ;;
        v5litepod-*) echo v2-alpha-tpuv5-lite ;;
        v5p-*) echo v2-alpha-tpuv5 ;;
        v6e-*) echo v2-alpha-tpuv6e ;;
    esac
}
