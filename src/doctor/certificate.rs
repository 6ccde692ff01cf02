//! Checks certificates: that of the public URL, and the files of `[tls]`.

use super::{Doctor, Finding};
use model::Timestamp;
use tls::{Prepared, TlsSettings, Validity};

const CHECK: &str = "certificate";

/// Number of days before expiry by which a certificate should have been renewed.
const DAYS: i64 = 14;
const DAY_SECS: i64 = 86_400;

/// The remedy for a certificate that should have been renewed by a program.
const RENEWAL: &str = "renew it now; its automatic renewal does not work";
/// The remedy for a file of `[tls]`.
const FILE_RENEWAL: &str =
    "renew it now, as it was issued; the node takes the new files within seconds";

/// The finding for a certificate of this validity.
pub(super) fn finding(validity: Option<Validity>, now: Timestamp) -> Finding {
    let Some(Validity { not_after: end, .. }) = validity else {
        return Finding::warning(
            CHECK,
            "its end of validity can't be read",
            "inspect it with `openssl x509 -noout -enddate`",
        );
    };
    let left = end.secs().saturating_sub(now.secs());
    let days = left.div_euclid(DAY_SECS);
    if left < 0 {
        return Finding::failed(CHECK, format!("expired at {end}"), "renew it now");
    }
    let what = format!("valid for {days} more days, until {end}");
    if days < DAYS {
        return Finding::warning(CHECK, what, RENEWAL);
    }
    Finding::ok(CHECK, what)
}

/// Adds the remedy for a file of `[tls]`, which the node does not renew.
fn of_file(finding: Finding) -> Finding {
    let fix = finding.fix.map(|fix| if fix == RENEWAL { FILE_RENEWAL.to_owned() } else { fix });
    Finding { fix, ..finding }
}

impl Doctor {
    /// The finding for the certificate that clients of the public URL get.
    pub(super) fn presented(&self, validity: Option<Validity>) -> Finding {
        let finding = finding(validity, self.clock.wall());
        match &self.config.tls {
            Some(TlsSettings::Acme(_)) => {
                let why = |fix| format!("{fix}; the node's log says why: `certificate not issued`");
                Finding { fix: finding.fix.map(why), ..finding }
            }
            Some(TlsSettings::Files(_)) => of_file(finding),
            None => finding,
        }
    }

    /// The findings about the files of `[tls]`.
    pub(super) fn certificate_files(&self) -> Vec<Finding> {
        let Some(settings @ TlsSettings::Files(files)) = &self.config.tls else {
            return Vec::new();
        };
        let loaded = match Prepared::load(settings.clone()) {
            Ok(loaded) => loaded,
            Err(error) => {
                let fix = "correct [tls]; the node's user must be able to read both files, and the \
                           key must be that of the certificate";
                return vec![Finding::failed(CHECK, error.to_string(), fix)];
            }
        };
        let now = self.clock.wall();
        let mut findings: Vec<_> = files
            .iter()
            .zip(loaded.validities())
            .map(|(files, validity)| {
                of_file(finding(validity, now)).of(files.cert.display().to_string())
            })
            .collect();
        let host = self.config.public.base_url.as_ref().and_then(|url| url.host_str());
        if let Some(host) = host.filter(|host| !loaded.has_certificate_for(host)) {
            let what = format!("no certificate of [tls] is for {host}, the host of the public URL");
            findings.push(Finding::failed(CHECK, what, "get a certificate for it").of(host));
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_certificate_that_expires_soon_is_reported() {
        let now = Timestamp::from_secs(1_795_219_200);
        for (days, state) in [(14, State::Ok), (13, State::Warning), (-1, State::Failed)] {
            let not_after = Timestamp::from_secs(now.secs() + days * DAY_SECS);
            let validity = Validity { not_before: Timestamp::default(), not_after };
            let finding = finding(Some(validity), now);
            assert_eq!(
                (finding.state, finding.fix.is_some()),
                (state, state != State::Ok),
                "{}",
                finding.what
            );
        }
        assert_eq!(finding(None, now).state, State::Warning);
    }
}
