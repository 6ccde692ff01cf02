//! sqlx; each query is a named function that returns `model` types.
