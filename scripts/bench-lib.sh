# What the bench scripts that keep their measurements as JSON have in common; to be read by them with `.`.
# shellcheck shell=sh

# read_options NAMES WORD...: --NAME VALUE pairs into the variables NAME (- becomes _); anything else prints the comment that
# the script begins with, and ends it.
read_options() {
    names=$1
    shift
    while [ $# -gt 0 ]; do
        name=$(printf '%s' "${1#--}" | tr - _)
        case " $names " in
        *" $name "*) [ $# -ge 2 ] && [ "$1" != "${1#--}" ] || usage ;;
        *) usage ;;
        esac
        eval "$name=\$2"
        shift 2
    done
}

usage() {
    sed -n '2,${/^#/!q;s/^# \{0,1\}//p;}' "$0" >&2
    exit 2
}

# measure FILE COMMAND...: the command's JSON into FILE of the work folder, unless it is there
measure() {
    file=$work/$1
    shift
    if [ -s "$file" ]; then
        return
    fi
    echo "+ $*" >&2
    "$@" >"$file.part"
    mv "$file.part" "$file"
}
