[ -n "$1" ] && kill "$1" 2>/dev/null
shift
rm -f "$@"
