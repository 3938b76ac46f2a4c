//! Where an image goes: local store, OCI layout and tar, docker tar, directory, rootfs tar.
//!
//! Never changes the image.
