//! Assembly: config to running node to clean stop; the one room that knows everybody.
