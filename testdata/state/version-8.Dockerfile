FROM tiny:1
RUN ["/true", "one"]
RUN ["/true", "two"]
ENV A=b
