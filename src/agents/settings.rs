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

impl PartialEq for ModelSettings {
    // Not in constant time: both values come from the operator's own configuration.
    fn eq(&self, other: &Self) -> bool {
        let key = |model: &Self| model.api_key.as_ref().map(|key| key.reveal().to_owned());
        self.url == other.url && self.name == other.name && key(self) == key(other)
    }
}
