ENV a=b
RUM x
ENV c=d
