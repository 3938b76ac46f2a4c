//! Messages and services of BuildKit's gRPC API, made from the `.proto` files beside this crate.
//!
//! Modules follow the protobuf packages. Each service has a client and a server, since a session has both roles.

#![allow(
    missing_docs,
    unreachable_pub,
    let_underscore_drop,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    clippy::implicit_clone,
    clippy::needless_pass_by_value,
    reason = "the code is generated; the `.proto` files have the documentation"
)]

/// The messages and services of the `.proto` files, as an encoded `google.protobuf.FileDescriptorSet`: for reflection, and for messages as JSON.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The build graph: `pb`.
pub mod pb {
    tonic::include_proto!("pb");
}

/// `google.rpc`.
pub mod google {
    /// The error value of gRPC.
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

/// `fsutil`.
pub mod fsutil {
    /// Files on the wire.
    pub mod types {
        tonic::include_proto!("fsutil.types");
    }
}

/// `containerd`.
pub mod containerd {
    /// `containerd.services`.
    pub mod services {
        /// Content by its digest.
        pub mod content {
            /// Version 1.
            pub mod v1 {
                tonic::include_proto!("containerd.services.content.v1");
            }
        }
    }
}

/// `opentelemetry.proto`.
pub mod opentelemetry {
    /// The root of the packages.
    pub mod proto {
        /// `opentelemetry.proto.common`.
        pub mod common {
            /// Values.
            pub mod v1 {
                tonic::include_proto!("opentelemetry.proto.common.v1");
            }
        }
        /// `opentelemetry.proto.trace`.
        pub mod trace {
            /// Spans.
            pub mod v1 {
                tonic::include_proto!("opentelemetry.proto.trace.v1");
            }
        }
        /// `opentelemetry.proto.collector`.
        pub mod collector {
            /// `opentelemetry.proto.collector.trace`.
            pub mod trace {
                /// The service that takes spans.
                pub mod v1 {
                    tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
                }
            }
        }
    }
}

/// Details of errors.
pub mod errdefs {
    tonic::include_proto!("errdefs");
}

/// `moby`.
pub mod moby {
    /// `moby.buildkit`.
    pub mod buildkit {
        /// The daemon's own service.
        pub mod v1 {
            tonic::include_proto!("moby.buildkit.v1");

            /// Capabilities.
            pub mod apicaps {
                tonic::include_proto!("moby.buildkit.v1.apicaps");
            }
            /// The service of frontends.
            pub mod frontend {
                tonic::include_proto!("moby.buildkit.v1.frontend");
            }
            /// Source policies.
            pub mod sourcepolicy {
                tonic::include_proto!("moby.buildkit.v1.sourcepolicy");

                /// The service of clients that judge each source.
                pub mod policysession {
                    tonic::include_proto!("moby.buildkit.v1.sourcepolicy.policysession");
                }
            }
            /// Workers.
            pub mod types {
                tonic::include_proto!("moby.buildkit.v1.types");
            }
        }
        /// Secrets of a session.
        pub mod secrets {
            /// Version 1.
            pub mod v1 {
                tonic::include_proto!("moby.buildkit.secrets.v1");
            }
        }
    }
    /// Files and logins of a session.
    pub mod filesync {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("moby.filesync.v1");
        }
    }
    /// SSH agents of a session.
    pub mod sshforward {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("moby.sshforward.v1");
        }
    }
    /// Exporters of a session.
    pub mod exporter {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("moby.exporter.v1");
        }
    }
    /// Uploads of a session.
    pub mod upload {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("moby.upload.v1");
        }
    }
}
