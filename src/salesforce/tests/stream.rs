//! The change event stream over gRPC.
