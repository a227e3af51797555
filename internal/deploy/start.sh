bin=$1 out=$2 err=$3 base=$4
shift 4
"$bin" -version >/dev/null || { echo "the program does not run there" >&2; exit 1; }
if "$bin" -base="$base" -e version >/dev/null 2>&1; then
	echo "a minimega runs there already, with base directory $base" >&2
	exit 1
fi
PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin
export PATH
cd / || exit 1
nohup "$bin" "$@" >"$out" 2>"$err" </dev/null &
pid=$!
echo "minimega-pid $pid"
n=0
while [ "$n" -lt 300 ]; do
	"$bin" -base="$base" -e version >/dev/null 2>&1
	answers=$?
	if ! kill -0 "$pid" 2>/dev/null; then
		wait "$pid"
		echo "it ended with status $?" >&2
		[ -f "$err" ] && tail -n 5 "$err" >&2
		exit 1
	fi
	[ "$answers" -eq 0 ] && exit 0
	sleep 0.2
	n=$((n+1))
done
kill "$pid"
echo "it does not answer within a minute" >&2
exit 1
