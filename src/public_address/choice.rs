//! Chooses the public addresses from those of the interfaces, of STUN servers and of an earlier
//! start.

use std::net::{IpAddr, SocketAddr};

use super::memory::{Memory, Sighting};
use super::{Family, FoundAddresses, NotFoundError, PublicAddress, Source};
use egress::is_public;

/// The addresses that were detected for one address family.
#[derive(Debug)]
pub(super) struct DetectedAddresses {
    pub(super) family: Family,
    /// The addresses at which this machine receives media, the preferred one first.
    pub(super) locals: Vec<IpAddr>,
    /// The answers, in the order of arrival.
    pub(super) answers: Vec<Answer>,
    /// The reasons why servers returned no address.
    pub(super) failures: Vec<String>,
}

/// The answer of a STUN server.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) server: String,
    /// The local address from which the request was sent.
    pub(super) local: IpAddr,
    /// The public address that the server reported.
    pub(super) mapped: SocketAddr,
}

impl DetectedAddresses {
    pub(super) fn new(family: Family, locals: Vec<IpAddr>) -> Self {
        Self { family, locals, answers: Vec::new(), failures: Vec::new() }
    }

    /// Whether a server is needed to find the public address: the family is in use, but all its
    /// addresses are private.
    pub(super) fn needs_stun(&self) -> bool {
        !self.locals.is_empty() && !self.locals.iter().any(|ip| is_public(*ip))
    }
}

/// Chooses the addresses of all families. Also returns the reported addresses to be stored for the
/// next start.
///
/// # Errors
/// Returns an error if no family has an address.
pub(super) fn choose(
    detected: &[DetectedAddresses],
    earlier: &Memory,
) -> Result<(FoundAddresses, Memory), NotFoundError> {
    let mut found = FoundAddresses::default();
    let (mut seen, mut faults) = (Memory::default(), Vec::new());
    for detected in detected.iter().filter(|detected| !detected.locals.is_empty()) {
        match of_family(detected, earlier.of(detected.family), &mut found) {
            Ok(sighting) => *seen.of_mut(detected.family) = sighting,
            Err(why) => faults.push((detected.family, why)),
        }
    }
    let reasons = faults.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>().join("; ");
    if found.addresses.is_empty() {
        return Err(NotFoundError(match reasons.is_empty() {
            true => "no interface has an address that listen.media serves".to_owned(),
            false => reasons,
        }));
    }
    // A private IPv6 network beside a public IPv4 address is common and harmless.
    if faults.iter().any(|(family, _)| *family == Family::V4) {
        found.warnings.push(format!("callers with IPv4 will not be heard: {reasons}"));
    }
    Ok((found, seen))
}

/// Adds the addresses of a family. Returns the address that a STUN server has reported, now or
/// earlier.
fn of_family(
    detected: &DetectedAddresses,
    earlier: Option<&Sighting>,
    found: &mut FoundAddresses,
) -> Result<Option<Sighting>, String> {
    let public = detected.locals.iter().filter(|ip| is_public(**ip));
    let own = public.map(|ip| PublicAddress { ip: *ip, source: Source::Interface });
    let before = found.addresses.len();
    found.addresses.extend(own);
    if found.addresses.len() > before {
        return Ok(None);
    }
    let unanswered = || {
        let (family, failures) = (detected.family, &detected.failures);
        match failures.as_slice() {
            [] => format!(
                "{family}: all addresses of this machine are private, and no STUN server is configured"
            ),
            _ => format!("{family}: no STUN server answered ({})", failures.join(", ")),
        }
    };
    if let Some(first) = detected.answers.first() {
        let ip = first.mapped.ip();
        let source = Source::Stun(first.server.clone());
        found.addresses.push(PublicAddress { ip, source });
        found.warnings.extend(disagreement(&detected.answers));
        return Ok(Some(Sighting { local: first.local, public: ip }));
    }
    match earlier.filter(|earlier| detected.locals.contains(&earlier.local)) {
        Some(earlier) => {
            let ip = earlier.public;
            found.addresses.push(PublicAddress { ip, source: Source::Earlier });
            found.warnings.push(format!(
                "{}; the address of an earlier start, {ip}, is used and may have changed",
                unanswered()
            ));
            Ok(Some(earlier.clone()))
        }
        None => Err(unanswered()),
    }
}

/// Returns a warning if two servers report different addresses for the same socket.
fn disagreement(answers: &[Answer]) -> Option<String> {
    let (first, others) = answers.split_first()?;
    let other = others.iter().find(|other| other.mapped != first.mapped)?;
    let (Answer { server: a, mapped: at_a, .. }, Answer { server: b, mapped: at_b, .. }) =
        (first, other);
    Some(if at_a.ip() == at_b.ip() {
        format!(
            "this machine is behind a symmetric NAT: {a} saw port {}, {b} saw port {}; forward the UDP ports of listen.media to this machine, or callers may not be heard",
            at_a.port(),
            at_b.port()
        )
    } else {
        format!(
            "this machine has several public addresses: {a} saw {}, {b} saw {}; set [public] media_ips to the one that calls shall use",
            at_a.ip(),
            at_b.ip()
        )
    })
}
