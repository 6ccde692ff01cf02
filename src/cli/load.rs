//! `offhook load`: the load generator. Comes with a later version; its options are settled (`interface.md` §1).

use super::Exit;

/// Options of `offhook load`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Calls begun a second
    #[arg(long, value_name = "R")]
    pub rate: f64,
    /// Calls in all
    #[arg(long, value_name = "N")]
    pub calls: u64,
    /// How long each call is held
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub hold: u32,
    /// With media: ICE, DTLS-SRTP and Opus on every call
    #[arg(long)]
    pub media: bool,
    /// Load this node (its base URL) instead of booting one
    #[arg(long, value_name = "URL")]
    pub node: Option<url::Url>,
}

/// Says that this version has no load generator.
pub fn run(_args: Args) -> Exit {
    Exit::failed("`load` comes with a later version; `offhook call` places one call")
}
