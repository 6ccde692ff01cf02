//! A simulated Meta and phone; meets a node over HTTP and UDP only, as the world does.
