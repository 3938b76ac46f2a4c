ENV a=b
RUN exit 6
