//! The application's URLs: fetch a document, send a callback, sign both. Goes out through `egress` only.
