tar -C webapp --owner=0 --group=0 --mtime=@1000000000 -czf webapp.tar.gz .
build
cached

# One row for each instruction, the newest first; the base's own row is the last.
lapstrake history --json "$IMAGE" | sed 's/.*"CreatedBy":"\(.*\)","ID":.*/\1/; s/\\"/"/g' > "$OUT/history"
head -n -1 "$OUT/history" | diff -u history.txt - || fail 'the history is another one'

# What the packages' own scripts did: a user, and a link that alternatives made.
says 'uuidd' lapstrake run "$IMAGE" getent passwd uuidd
says '1000000000' lapstrake run "$IMAGE" stat -c %Y index.txt

start -e PORT=18431 "$IMAGE"
retry busybox wget -qO- http://127.0.0.1:18431/index.txt
says 'It works, from a layer.' busybox wget -qO- http://127.0.0.1:18431/index.txt
stop TERM
