//! The request that places a simulated call.

use serde::{Deserialize, Serialize};

use super::caller::KeysStart;

/// Body of `POST /_sim/calls`. All members are optional.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallRequest {
    /// The business number. An unknown number needs `phone_number_id` and `waba` as well.
    pub to: Option<String>,
    pub phone_number_id: Option<String>,
    pub waba: Option<String>,
    pub from: Option<String>,
    pub name: Option<String>,
    /// Base URL of the node.
    pub node: Option<String>,
    pub api_key: Option<String>,
    pub app_secret: Option<String>,
    pub verify_token: Option<String>,
    pub dtmf: Option<String>,
    pub keys_start: KeysStart,
    /// A WAV file in Base64, played after the answer.
    pub say: Option<String>,
    pub record: bool,
    /// Hangs up this many seconds after the answer. Without it, hangs up when the call is quiet.
    pub hold_s: Option<f64>,
    /// Whether the user stays on the line and never hangs up.
    pub stay: bool,
}
