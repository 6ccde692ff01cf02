//! `[model]`: the operator's language model.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota};
use url::Url;

use model::{AuthId, Secret};

const DAY: Duration = Duration::from_secs(86_400);

/// `[model]`: an OpenAI-compatible server of the operator. Insights use it, and agents that name
/// no endpoint of their own.
#[derive(Clone, Debug)]
pub struct ModelSettings {
    /// The base URL; requests go to `chat/completions` below it.
    pub url: Url,
    pub api_key: Option<Secret>,
    /// The name of the model on that server.
    pub name: String,
    /// Other models on that server that agents may use. The operator pays for them.
    pub allowed: Vec<String>,
    /// Requests of a main account and its subaccounts in a day.
    pub requests_per_day: NonZeroU32,
}

/// The operator's model and the remaining requests of each account. Used requests are restored
/// evenly over a day, and all of them by a restart.
pub(super) struct SharedModel {
    pub(super) settings: ModelSettings,
    used: DefaultKeyedRateLimiter<AuthId>,
}

impl SharedModel {
    pub(super) fn new(settings: ModelSettings) -> Self {
        let per_day = settings.requests_per_day;
        let quota = Quota::with_period(DAY / per_day.get())
            .unwrap_or(Quota::per_second(per_day))
            .allow_burst(per_day);
        Self { settings, used: DefaultKeyedRateLimiter::keyed(quota) }
    }

    /// Returns the model for an agent: the one it names, or the default. `None` if agents may not
    /// use the named one.
    pub(super) fn choose<'a>(&'a self, named: Option<&'a str>) -> Option<&'a str> {
        let Some(named) = named else { return Some(&self.settings.name) };
        self.names().find(|known| *known == named)
    }

    /// The models that agents may use, the default first.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let more = self.settings.allowed.iter().map(String::as_str);
        std::iter::once(self.settings.name.as_str()).chain(more)
    }

    /// Takes one of the main account's requests. Returns `false` if none is left.
    pub(super) fn take_request(&self, main_account: &AuthId) -> bool {
        self.used.check_key(main_account).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_use_listed_models_and_each_account_has_its_own_budget() {
        let model = SharedModel::new(ModelSettings {
            url: Url::parse("http://127.0.0.1/v1").unwrap(),
            api_key: None,
            name: "small".to_owned(),
            allowed: vec!["large".to_owned()],
            requests_per_day: NonZeroU32::new(2).unwrap(),
        });
        for (named, chosen) in [
            (None, Some("small")),
            (Some("small"), Some("small")),
            (Some("large"), Some("large")),
            (Some("huge"), None),
        ] {
            assert_eq!(model.choose(named), chosen);
        }
        let (one, two): (AuthId, AuthId) = ("MA1".into(), "MA2".into());
        let taken = [&one, &one, &one, &two].map(|account| model.take_request(account));
        assert_eq!(taken, [true, true, false, true]);
    }
}
