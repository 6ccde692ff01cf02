//! `[model]`: the operator's language model.

use url::Url;

use model::Secret;

/// `[model]`: an OpenAI-compatible server of the operator. Insights use it, and agents that name
/// no endpoint of their own.
#[derive(Clone, Debug)]
pub struct ModelSettings {
    /// The base URL; requests go to `chat/completions` below it.
    pub url: Url,
    pub api_key: Option<Secret>,
    /// The name of the model on that server.
    pub name: String,
}
