//! HTTP in, one typed command or query, HTTP out; a file a resource. Status codes are decided in `error`.
