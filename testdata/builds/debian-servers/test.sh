build
cached

# A port for each run: several of these tests may run on one machine.
port=$((20000 + $$ % 20000))

start -e PORT="$port" "$IMAGE"
retry busybox wget -qO- "http://127.0.0.1:$port/"
says 'planks' busybox wget -qO- "http://127.0.0.1:$port/"
stop TERM 0

bin=/usr/lib/postgresql/15/bin
start --user postgres "$IMAGE" $bin/postgres -D /var/lib/postgresql/15/main \
    -c config_file=/etc/postgresql/15/main/postgresql.conf -c port="$port"
client="lapstrake run --network host --user postgres -e PGPASSWORD=lap $IMAGE psql -h 127.0.0.1 -p $port -U plank -tAc"
# shellcheck disable=SC2086 # the words of a command
retry $client 'SELECT 1' plank
# shellcheck disable=SC2086
says 42 $client 'SELECT 40 + 2' plank
stop TERM 0
