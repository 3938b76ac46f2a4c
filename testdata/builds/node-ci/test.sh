if lapstrake build . 2> "$OUT/refused"; then fail 'there is no node:20'; fi
says 'node:20' cat "$OUT/refused"
build --build-arg NODE_VERSION=18
cached --build-arg NODE_VERSION=18
says 'port 3000, arguments 1 2' lapstrake run "$IMAGE" 1 x 2
says 'port 81, arguments' lapstrake run -e PORT=81 "$IMAGE"
