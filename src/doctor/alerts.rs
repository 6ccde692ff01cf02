//! Checks that the receivers of `[alerts]` can be reached. Nothing is sent to them.

use super::{Doctor, Finding};
use engine::alerts::check_channels;

const IS: &str = "alerts";

impl Doctor {
    /// The findings about the receivers of alerts. Calls do not depend on them.
    pub(super) async fn alerts(&self) -> Vec<Finding> {
        let checked = check_channels(&self.config.alerts, &self.egress).await;
        let finding = |(receiver, result): (String, Result<(), String>)| {
            match result {
                Ok(()) => Finding::ok(IS, "it responds"),
                Err(why) => Finding::warning(
                    IS,
                    format!("not all alerts will arrive there: {why}"),
                    "check its address, its certificate and the password in [alerts], and the connection from here",
                ),
            }
            .of(receiver)
        };
        checked.into_iter().map(finding).collect()
    }
}
