build
cached

# Whoever builds: the layers say whose things are. Sizes, times and what may differ between versions of Debian are left out.
lapstrake build -q $(machine) -o type=oci,dest="$OUT/image.tar" . > /dev/null
mkdir "$OUT/image" && tar -xf "$OUT/image.tar" -C "$OUT/image"
for blob in "$OUT"/image/blobs/sha256/*; do
    # Configurations are blobs too, and no archives.
    tar -tvzf "$blob" --numeric-owner 2> /dev/null | sed 's/  *[0-9,]* [-0-9]* [0-9:]* / /' || true
done | LC_ALL=C sort > "$OUT/all"
grep -E ' (home|tree|again|moved|note|copy|run/uuidd|var/mail|etc/shadow|usr/bin/sudo|etc/sudoers.d/app)' "$OUT/all" |
    grep -vE '/(r|work|far)/|-$|\.bash|\.profile' > "$OUT/owners"
diff -u owners.txt "$OUT/owners" || fail 'owners are others'

# The same from the inside; a later step does not see whose a link is where one id is mapped.
says '20:21 20:21 7:8 9:10 4755' \
    lapstrake run "$IMAGE" sh -c 'echo $(stat -c %u:%g /note /copy /tree/f /moved/s) $(stat -c %a /moved/s)'
