# What the `test.sh` beside each Dockerfile is written in. Each is run in a copy of its folder, by `sh -eu`, with
# `lapstrake` on PATH, the image's name in $IMAGE, and this machine's configuration of package managers in
# $MACHINE. What a test writes goes to $OUT: the folder is the context.

fail() {
    echo "FAILED: $*" >&2
    [ ! -s "$OUT/log" ] || tail -n 60 "$OUT/log" >&2
    exit 1
}

# Options that give steps the configuration of this machine; nothing where it needs none.
machine() {
    for id in apt npmrc pip ca; do
        [ ! -s "$MACHINE/$id" ] || printf '%s\n' "--secret=id=$id,src=$MACHINE/$id"
    done
}

# build [OPTION...]: builds the folder as $IMAGE; the output is in `$OUT/log`.
build() {
    # shellcheck disable=SC2046 # one word for each option, and none has a space
    lapstrake build --progress plain $(machine) -t "$IMAGE" "$@" . > "$OUT/log" 2>&1 || fail 'the build'
}

# cached [OPTION...]: the same build again does nothing, and gives the same image.
cached() {
    lapstrake images --json > "$OUT/before"
    build "$@"
    lapstrake images --json > "$OUT/after"
    steps=$(grep -c '^#[0-9]* \[.*[0-9]/[0-9]*\] [^F]' "$OUT/log") || true
    hits=$(grep -c '^#[0-9]* CACHED$' "$OUT/log") || true
    [ "$steps" -gt 0 ] && [ "$hits" -ge "$steps" ] || fail "$hits of $steps steps are cached"
    cmp -s "$OUT/before" "$OUT/after" || fail 'another image'
}

# says TEXT COMMAND...: the command works and prints the text.
says() {
    text=$1
    shift
    "$@" > "$OUT/said" 2> "$OUT/said.err" || fail "\`$*\`: $(cat "$OUT/said" "$OUT/said.err")"
    grep -qF -- "$text" "$OUT/said" || fail "\`$*\` says $(cat "$OUT/said"), not $text"
}

# log_says PATTERN [NEXT]: a line of the build's log is like this, and the line after it like that.
log_says() {
    grep -A1 -- "$1" "$OUT/log" > "$OUT/found" || fail "no line is like $1"
    [ $# -lt 2 ] || grep -q -- "$2" "$OUT/found" || fail "no line like $2 comes after $1"
}

# start OPTION...: runs in the background, in the network of this machine; stdout is in `$OUT/stdout`. At the end it is killed, whatever happens.
start() {
    lapstrake run --network host "$@" > "$OUT/stdout" 2> "$OUT/stderr" &
    started=$!
    trap 'kill -9 $started 2> /dev/null || true' EXIT
}

# retry COMMAND...: until it works, for ten seconds.
retry() {
    for _ in $(seq 100); do
        ! "$@" > /dev/null 2>&1 || return 0
        kill -0 "$started" 2> /dev/null || fail "it has ended: $(cat "$OUT/stdout" "$OUT/stderr")"
        sleep 0.1
    done
    fail "\`$*\` never worked: $(cat "$OUT/stdout" "$OUT/stderr")"
}

# wait_for SED: what `sed -n SED` makes of the output, as soon as that is something.
wait_for() {
    retry sh -c "sed -n '$1' '$OUT/stdout' | grep -q ."
    sed -n "$1" "$OUT/stdout"
}

# stop SIGNAL [STATUS]: sends a signal and waits, for ten seconds; the exit status is what is expected.
stop() {
    kill -s "$1" "$started"
    for _ in $(seq 100); do
        kill -0 "$started" 2> /dev/null || break
        sleep 0.1
    done
    ! kill -9 "$started" 2> /dev/null || fail "it does not end on SIG$1: $(cat "$OUT/stderr")"
    status=0
    wait "$started" || status=$?
    trap - EXIT
    [ $# -lt 2 ] || [ "$status" -eq "$2" ] || fail "it ended with $status: $(cat "$OUT/stderr")"
}
