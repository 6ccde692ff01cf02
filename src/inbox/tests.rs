//! The inbox with a store and no Meta.
