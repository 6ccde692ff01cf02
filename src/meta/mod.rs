//! Graph API payloads as types; a client that knows retries and nothing of calls.
