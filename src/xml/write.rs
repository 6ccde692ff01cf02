//! Typed elements back to text.
