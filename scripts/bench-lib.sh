# What the bench scripts have in common; to be read by them with `.`. They set `here`, where the repository is, and what their
# options say: model, calib, text, work, windows, seq_len; and `matquant`, the program.
# shellcheck shell=sh disable=SC2154

# read_options NAMES WORD...: --NAME VALUE pairs into the variables NAME (- becomes _); anything else prints the comment that
# the script begins with, and ends it.
read_options() {
    names=$1
    shift
    while [ $# -gt 0 ]; do
        name=$(printf '%s' "${1#--}" | tr - _)
        case " $names " in
        *" $name "*) [ $# -ge 2 ] && [ "$1" != "${1#--}" ] || usage "$@" ;;
        *) usage "$@" ;;
        esac
        eval "$name=\$2"
        shift 2
    done
}

# usage [WORD...]: prints the comment that the script begins with, and ends it: with 0 if the first word asks for help, else 2.
usage() {
    case ${1-} in
    -h | --help) say_usage && exit ;;
    esac
    say_usage >&2
    exit 2
}

say_usage() { sed -n '2,${/^#/!q;s/^# \{0,1\}//p;}' "$0"; }

# help_wanted WORD...: prints that comment, and ends the script, if a word asks for help.
help_wanted() {
    for word; do
        case $word in
        -h | --help) usage "$word" ;;
        esac
    done
}

# split_model: NAME=FOLDER in `model` into `name` and `folder`; without it, `calib` or `text` the script ends.
split_model() {
    if [ -z "$calib" ] || [ -z "$text" ] || [ "${model%%=*}" = "$model" ]; then
        echo "$0: --model NAME=FOLDER, --calib and --text are needed" >&2
        exit 2
    fi
    name=${model%%=*} folder=${model#*=}
}

# measure FILE COMMAND...: the command's JSON, and when and on what machine it ran (bench_machine.py), into FILE of the work
# folder, unless it is there
measure() {
    file=$work/$1
    shift
    if [ -s "$file" ]; then
        return
    fi
    echo "+ $*" >&2
    python3 "$here/scripts/bench_machine.py" time "$@" >"$file.part"
    mv "$file.part" "$file"
}

# make_master MASTER OPTION...: $work/MASTER by quantizing $folder, and MASTER.json, unless that is there
make_master() {
    made=$1
    shift
    measure "$made.json" "$matquant" quantize "$folder" -o "$work/$made" --force "$@" --json
}

# evaluate FILE FOLDER [OPTION...]: what eval says of it, on $text
evaluate() {
    output=$1
    shift
    measure "$output" "$matquant" eval "$@" --text "$text" --windows "$windows" --seq-len "$seq_len" --json
}

# evaluate_widths MASTER "WIDTH..." [OPTION...]: $work/MASTER at each width, into MASTER-wWIDTH.json
evaluate_widths() {
    evaluated=$1 its_widths=$2
    shift 2
    for width in $its_widths; do
        evaluate "$evaluated-w$width.json" "$work/$evaluated" --bits "$width" "$@"
    done
}

# keep_back FOLDER: where $text is "last:N", the last N documents of $calib, a .jsonl.gz, become a text of their own, and $calib
# what is before them; both are written to FOLDER.
keep_back() {
    case $text in
    last:*) ;;
    *) return ;;
    esac
    if [ ! -s "$1/text.jsonl" ]; then
        gzip -dc "$calib" >"$1/all.jsonl"
        kept=$(($(wc -l <"$1/all.jsonl") - ${text#last:}))
        if [ "$kept" -le 0 ]; then
            echo "$0: $calib has no ${text#last:} documents to keep back" >&2
            exit 2
        fi
        head -n "$kept" "$1/all.jsonl" >"$1/calib.jsonl"
        tail -n "+$((kept + 1))" "$1/all.jsonl" >"$1/text.part"
        rm "$1/all.jsonl"
        mv "$1/text.part" "$1/text.jsonl"
    fi
    calib=$1/calib.jsonl text=$1/text.jsonl
}

# find_build ROOT: $build is where matquant was built.
find_build() {
    build=${MATQUANT_BUILD:-$1/build/release}
    if [ ! -x "$build/matquant" ]; then
        echo "$0: $build is not built: cmake --preset release && cmake --build --preset release" >&2
        exit 2
    fi
    unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
}

# readers_environment ROOT: $build, and $python of the readers' environment, which test-readers.sh makes if it is not there and
# says where it is.
readers_environment() {
    find_build "$1"
    python=$("$1/scripts/test-readers.sh" --install) || {
        echo "$0: $python" >&2
        exit 2
    }
}

# peers_environment ROOT: $build, and $python, the Python of the peers' environment, which is made if it is not there:
# ~/.cache/matquant/peers-venv (XDG_CACHE_HOME: another ~/.cache; MATQUANT_PEERS_VENV: another place), from the Python package
# index.
# MATQUANT_TORCH is what pip is given for PyTorch (default: torch==2.13.0), to name its CPU build where that takes more.
peers_environment() {
    find_build "$1"
    venv=${MATQUANT_PEERS_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/matquant/peers-venv}
    python=$venv/bin/python
    found='import importlib.util as u, sys; sys.exit(not (u.find_spec("auto_round") and u.find_spec("llmcompressor")))'
    if ! "$python" -c "$found" 2>/dev/null; then
        # shellcheck source=scripts/venv-lib.sh
        . "$1/scripts/venv-lib.sh"
        why=$(make_venv "$venv") || {
            echo "$0: $why" >&2
            exit 2
        }
        # Before the packages that need it: else pip takes the build with CUDA, several GB.
        # shellcheck disable=SC2086  # a list of words
        "$python" -m pip install --quiet ${MATQUANT_TORCH:-torch==2.13.0}
        "$python" -m pip install --quiet -r "$1/scripts/requirements-peers.txt"
    fi
}
