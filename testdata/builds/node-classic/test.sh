# node_modules of the machine must not get into the image.
mkdir -p node_modules/is-number
echo 'module.exports = () => { throw "from the machine" };' > node_modules/is-number/index.js
build
cached

start -e PORT=0 "$IMAGE"
port=$(wait_for 's/.*listening on //p')
says '42 is a number' busybox wget -qO- "http://127.0.0.1:$port/42"
says 'x is no number' busybox wget -qO- "http://127.0.0.1:$port/x"
stop TERM 0

# A changed source runs nothing again.
echo '// changed' >> server.js
build
log_says 'npm install$' 'CACHED$'
says '18' lapstrake run "$IMAGE" node -p 'process.versions.node.split(".")[0]'
says '"8080/tcp"' lapstrake inspect "$IMAGE"
