INCLUDE part.Dockerfile
