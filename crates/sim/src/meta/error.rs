//! Error responses of Graph.

use serde_json::{Value, json};

/// An error response of Graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GraphError {
    pub(crate) status: u16,
    pub(crate) code: i64,
    pub(crate) subcode: Option<u32>,
    pub(crate) details: String,
}

impl GraphError {
    /// Code 100: invalid parameter.
    pub(crate) fn parameter(details: impl Into<String>) -> Self {
        Self { status: 400, code: 100, subcode: None, details: details.into() }
    }

    /// A limit that has been reached.
    pub(super) fn limit(code: i64, details: &str) -> Self {
        Self { status: 429, code, subcode: None, details: details.into() }
    }

    /// Code 100 for a call that does not exist or has ended.
    pub(crate) fn no_call() -> Self {
        Self::parameter("Call not found or ended")
    }

    fn message(&self) -> String {
        let text = match (self.code, self.subcode) {
            (190, _) => "Invalid OAuth access token",
            (613, _) => "Calls to this api have exceeded the rate limit",
            (131_000, _) => "Something went wrong",
            (131_009, _) => "Parameter value is not valid",
            (131_047, _) => "Re-engagement message",
            (132_000, _) => "Number of parameters does not match the expected number of params",
            (133_005, _) => "Two step verification PIN mismatch",
            (138_000, _) => "Calling not enabled",
            (138_002, _) => "Concurrent calls limit hit",
            (138_003, _) => "Duplicate call",
            (138_006, _) => "Call permission not found",
            (138_009, _) => "Call permission request limit hit",
            (138_012, _) => "Business initiated calls limit hit",
            (_, Some(33)) => return "Unsupported post request. Object does not exist".into(),
            _ => "Invalid parameter",
        };
        format!("(#{}) {text}", self.code)
    }

    pub(super) fn body(&self, trace: &str) -> Value {
        let mut error = json!({
            "message": self.message(),
            "type": if self.subcode == Some(33) { "GraphMethodException" } else { "OAuthException" },
            "code": self.code,
            "fbtrace_id": trace,
        });
        if let Some(members) = error.as_object_mut() {
            if let Some(subcode) = self.subcode {
                members.insert("error_subcode".into(), json!(subcode));
            }
            if !self.details.is_empty() {
                members.insert(
                    "error_data".into(),
                    json!({"messaging_product": "whatsapp", "details": self.details}),
                );
            }
        }
        json!({ "error": error })
    }
}
