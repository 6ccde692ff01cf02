//! Notifications about webhook deliveries that were given up. Each receiver causes at most one per
//! hour.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::call::GivenUp;
use crate::notices::Notice;
use model::{AuthId, NotificationTopic, Timestamp};

/// Minimum time between two notifications about one receiver.
const INTERVAL: Duration = Duration::from_secs(3_600);
/// The largest number of remembered receivers. Expired ones are removed when it is reached.
const RECEIVERS_MAX: usize = 10_000;

/// The time of the last notification, by account and receiver.
#[derive(Debug, Default)]
pub(super) struct DeliveryNotices(Mutex<HashMap<(AuthId, String), Timestamp>>);

impl DeliveryNotices {
    /// Builds the notification. `None` if the receiver had one recently.
    pub(super) fn notice(&self, given_up: GivenUp, now: Timestamp) -> Option<Notice> {
        let GivenUp { account, main_account, to, number, why } = given_up;
        let mut last_notices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = (account.clone(), to.clone());
        if last_notices.get(&of).is_some_and(|last| now.since(*last) < INTERVAL) {
            return None;
        }
        if last_notices.len() >= RECEIVERS_MAX {
            last_notices.retain(|_, last| now.since(*last) < INTERVAL);
        }
        if last_notices.len() < RECEIVERS_MAX {
            last_notices.insert(of, now);
        }
        let log = match number {
            Some(_) => "number's webhook URL",
            None => "webhook",
        };
        let text = format!(
            "{to} did not accept an event about messages: {why}. The delivery was given up; it can be \
             repeated from the deliveries of the {log}."
        );
        let notice = Notice::new(account, main_account, NotificationTopic::Delivery, text);
        Some(Notice { number: number.map(|number| number.to_string()), ..notice })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::DeliveryNotices;
    use crate::call::GivenUp;
    use model::{NotificationTopic, Timestamp};

    #[test]
    fn s3_24_notifies_once_an_hour_per_receiver() {
        let (notices, now) = (DeliveryNotices::default(), Timestamp::from_secs(1_000_000));
        let given_up = |host: &str| GivenUp {
            account: "MA1".into(),
            main_account: "MA1".into(),
            to: format!("https://{host}"),
            number: None,
            why: "410".to_owned(),
        };
        let notice = notices.notice(given_up("crm.example.com"), now).unwrap();
        assert_eq!(notice.topic, NotificationTopic::Delivery);
        assert!(
            notice.text.contains("https://crm.example.com") && notice.text.contains("410"),
            "{}",
            notice.text
        );
        let later = now.plus(Duration::from_secs(3_599));
        assert!(notices.notice(given_up("crm.example.com"), later).is_none());
        assert!(notices.notice(given_up("desk.example.com"), later).is_some());
        assert!(
            notices
                .notice(given_up("crm.example.com"), now.plus(Duration::from_secs(3_600)))
                .is_some()
        );
    }
}
