# first

ENV a=b
COPY --from=9 \
     /x /y
