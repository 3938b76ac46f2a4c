FROM busybox AS base
