//! May this call start? One synchronous, lock-free answer with a named reason.
