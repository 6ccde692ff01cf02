//! Signature over the raw bytes, typed event, its call.
