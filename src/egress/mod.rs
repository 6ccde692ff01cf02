//! The only way out to a URL that a customer chose: refuse private addresses, connect to the checked one (R17).
