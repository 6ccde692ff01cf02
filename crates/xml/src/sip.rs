//! SIP addresses of `User`.

/// The host in the SIP addresses of Plivo's documentation, which every node accepts as its own.
pub const PLIVO_HOST: &str = "phone.plivo.com";

/// Returns NAME and HOST of `sip:NAME@HOST`, without port, parameters and headers. `None` if the
/// address does not have this form.
pub fn name_and_host(address: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = address.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
        return None;
    }
    let (name, host) = rest.split_once('@')?;
    let host = host.split([';', '?']).next().unwrap_or(host);
    let host = match (host.strip_prefix('['), host.rsplit_once(':')) {
        (Some(v6), _) => v6.split(']').next().unwrap_or(v6),
        (None, Some((host, _port))) => host,
        (None, None) => host,
    };
    (!name.is_empty() && !host.is_empty()).then_some((name, host))
}

#[cfg(test)]
mod tests {
    use super::name_and_host;

    #[test]
    fn parses_name_and_host_of_sip_addresses() {
        for (address, expected) in [
            ("sip:asha@calls.example.com", Some(("asha", "calls.example.com"))),
            ("SIPS:asha@calls.example.com:5061;transport=tls", Some(("asha", "calls.example.com"))),
            ("sip:asha@[::1]:5060?subject=x", Some(("asha", "::1"))),
            ("sip:calls.example.com", None),
            ("tel:+919812345678", None),
            ("919812345678", None),
        ] {
            assert_eq!(name_and_host(address), expected, "{address}");
        }
    }
}
