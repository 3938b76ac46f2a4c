printf 'open-%s' sesame > "$OUT/key"
build --secret id=key,src="$OUT/key"
cached --secret id=key,src="$OUT/key"
says "built with key $(sha256sum < "$OUT/key" | cut -c1-8)" lapstrake run "$IMAGE"
if grep -rlF "$(cat "$OUT/key")" "$LAPSTRAKE_ROOT"; then fail 'the secret was kept'; fi

# The cache mounts are what apt used, and no part of the image.
ls "$LAPSTRAKE_ROOT"/mounts/*/data/lists > "$OUT/lists" || fail 'apt used no cache'
lapstrake run "$IMAGE" sh -c 'test ! -e /var/lib/apt' || fail 'a cache mount is in the image'
