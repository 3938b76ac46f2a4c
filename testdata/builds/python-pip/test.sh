build
cached
says 'hello, you from docopt 0.6.2' lapstrake run "$IMAGE" python3 app.py you

# pip runs again, and takes the wheel that it made the last time from the cache mount.
echo '# changed' >> requirements.txt
build
log_says 'Using cached docopt-0.6.2-py'
lapstrake run "$IMAGE" sh -c 'test ! -e /root/.cache/pip/wheels' || fail 'the cache mount is in the image'
