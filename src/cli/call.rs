//! `offhook call`: one simulated WhatsApp call from the terminal, with real WebRTC media.

use std::path::PathBuf;

use super::Exit;
use crate::config::Secret;

/// Options of `offhook call`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Call through this node (its base URL) instead of booting one; its graph_url must be a simulated Meta
    #[arg(long, value_name = "URL")]
    pub node: Option<url::Url>,
    /// The business number to call [default: the demo's, or the node's only one]
    #[arg(long, value_name = "NUMBER")]
    pub to: Option<String>,
    /// The calling user's WhatsApp number
    #[arg(long, value_name = "WA_ID")]
    pub from: Option<String>,
    /// Keys to press once the call is up and something was heard: 0-9 * # A-D, `w` waits 0.5 s, `W` 1 s
    #[arg(long, value_name = "KEYS")]
    pub dtmf: Option<String>,
    /// A WAV file to speak
    #[arg(long, value_name = "FILE.wav")]
    pub say: Option<PathBuf>,
    /// Write what was heard to this WAV file
    #[arg(long, value_name = "OUT.wav")]
    pub record: Option<PathBuf>,
    /// The answer URL of the booted node's number (not with --node)
    #[arg(long, value_name = "URL", conflicts_with = "node")]
    pub answer_url: Option<url::Url>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Hang up after so many seconds if nobody has before
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub hold: u32,
    /// The node's Meta app secret, which signs the webhooks (with --node)
    #[arg(long, value_name = "SECRET", env = "META_APP_SECRET", hide_env_values = true)]
    pub app_secret: Option<Secret>,
    /// The node's webhook verify token (with --node)
    #[arg(long, value_name = "TOKEN", env = "META_VERIFY_TOKEN", hide_env_values = true)]
    pub verify_token: Option<Secret>,
    /// The node's API key, to follow the call's instructions (with --node)
    #[arg(long, value_name = "KEY", env = "OFFHOOK_API_KEY", hide_env_values = true)]
    pub api_key: Option<Secret>,
}

/// Places the call: 0 when it went through, 1 when not.
pub fn run(_args: Args) -> Exit {
    Exit::failed("`call` is not built yet")
}
